"""Trains soft attention in PyTorch on the cached features of a store, and captions an image. It needs no TensorFlow.

    python soft_attention_pytorch.py STORE --checkpoint model.pt

An interrupted training goes on at the step after the last checkpoint, with the batches that it would have had.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

import capt

START, END = 2, 3


class SoftAttention(nn.Module):
    """A GRU that looks at a weighted mean of the locations for each word (Xu et al., 2015)."""

    def __init__(self, vocabulary: int, channels: int, units: int = 256) -> None:
        super().__init__()
        self.normalize = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, units)
        self.query = nn.Linear(units, units)
        self.energy = nn.Linear(units, 1)
        self.embed = nn.Embedding(vocabulary, units, padding_idx=0)
        self.recurrence = nn.GRUCell(2 * units, units)
        self.logits = nn.Linear(2 * units, vocabulary)

    def start(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the projected locations [N, L, units] and the first state [N, units] of features [N, L, channels]."""
        locations = self.project(self.normalize(features))
        return locations, torch.tanh(locations.mean(1))

    def step(
        self, tokens: torch.Tensor, state: torch.Tensor, locations: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the logits [N, vocabulary] of the next token, and the next state."""
        energy = self.energy(torch.tanh(locations + self.query(state)[:, None]))
        context = (torch.softmax(energy, dim=1) * locations).sum(1)
        state = self.recurrence(torch.cat([self.embed(tokens), context], dim=1), state)
        return self.logits(torch.cat([state, context], dim=1)), state

    def forward(self, features: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the logits [N, T, vocabulary] of the tokens that follow `tokens` [N, T]."""
        locations, state = self.start(features)
        steps = []
        for column in tokens.unbind(1):
            logits, state = self.step(column, state, locations)
            steps.append(logits)
        return torch.stack(steps, dim=1)

    @torch.inference_mode()
    def caption(self, features: torch.Tensor, max_length: int = 20) -> list[int]:
        """Returns the token IDs of one image's caption, by greedy decoding."""
        locations, state = self.start(features[None])
        token, caption = START, []
        while len(caption) < max_length:
            logits, state = self.step(torch.tensor([token]), state, locations)
            token = int(logits.argmax())
            if token == END:
                break
            caption.append(token)
        return caption


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--feature-table", help="fingerprint, if the store has several tables")
    parser.add_argument("--checkpoint", type=Path, default=Path("soft_attention.pt"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--save-steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="processes that read batches")
    options = parser.parse_args()

    words = capt.open_store(options.store).caption_tables()[0].vocabulary()
    source = capt.caption_source(options.store, "train", feature_table=options.feature_table)
    torch.manual_seed(0)
    model = SoftAttention(len(words), source.feature_shape[-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_function = nn.CrossEntropyLoss(ignore_index=0)
    epoch = step = 0
    if options.checkpoint.exists():
        saved = torch.load(options.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        epoch, step = saved["epoch"], saved["step"]

    def save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch, "step": step}
        torch.save(state, options.checkpoint)

    while epoch < options.epochs:
        batches = source.batches(options.batch_size, seed=0, epoch=epoch, first_step=step)
        losses = []
        for batch in DataLoader(batches, batch_size=None, num_workers=options.workers):
            logits = model(batch["features"].flatten(1, -2), batch["tokens"])
            loss = loss_function(logits.flatten(0, 1), batch["targets"].flatten().long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if step % options.save_steps == 0:
                save()
        epoch, step = epoch + 1, 0
        save()
        print(f"epoch {epoch}: loss {sum(losses) / len(losses):.3f}")

    model.eval()
    image = source[0]
    caption = model.caption(torch.from_numpy(image["features"]).flatten(0, -2))
    print(image["image_key"][:12], " ".join(words[token] for token in caption))


if __name__ == "__main__":
    main()
