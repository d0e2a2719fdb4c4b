"""The commands of capt: name, options, and the functions that run them and print their results."""

from dataclasses import dataclass

from schemas.options import data, inference, models, prepare, store, training, workflows
from schemas.options.base import Options


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        name: What the command line calls it, with its group: `prepare features`.
        options: Its options.
        runs: `module:function` that takes the options and returns what `--json` prints.
        prints: `module:function` that prints the result for people; empty for a table of the result's entries.
    """

    name: str
    options: type[Options]
    runs: str
    prints: str = ""

    @property
    def function(self) -> str:
        """The name of the command in Python: `prepare_features`."""
        return self.name.replace(" ", "_")


GROUPS = {
    "synth": "Generate synthetic datasets.",
    "prepare": "Compute features, caption tokens and CAPTCHA pixels, and write them to a store.",
    "store": "Inspect and maintain a store.",
    "train": "Train a model on the tables of a store.",
    "predict": "Run batch inference and write the predictions to a file.",
    "experiment": "Run and compare a grid of training runs.",
    "models": "Manage the model registry of a store.",
}

# In the order of work, which is that of the help.
COMMANDS = (
    Command("demo", workflows.Demo, "workflows.demo:demo", "workflows.demo:show_demo"),
    Command("fetch", data.Fetch, "pipelines.fetching:fetch_dataset", "pipelines.fetching:print_fetched"),
    Command("synth scenes", data.SynthScenes, "features.scenes:synth_scenes"),
    Command("synth captcha", data.SynthCaptcha, "features.captchas:synth_captcha"),
    Command("prepare features", prepare.PrepareFeatures, "pipelines.prepare_features:prepare_features"),
    Command("prepare captions", prepare.PrepareCaptions, "pipelines.prepare_captions:prepare_captions"),
    Command("prepare captcha", prepare.PrepareCaptcha, "pipelines.prepare_captcha:prepare_captcha"),
    Command(
        "store ls", store.StoreLs, "features.store.inventory:list_store", "features.store.inventory_tables:print_list"
    ),
    Command(
        "store stats",
        store.StoreStats,
        "features.store.inventory:store_stats",
        "features.store.inventory_tables:print_stats",
    ),
    Command("store show", store.StoreShow, "workflows.show:show_examples", "workflows.show:print_examples"),
    Command("store verify", store.StoreVerify, "features.store.verify:verify_store"),
    Command("store compact", store.StoreCompact, "features.store.compact:compact_store"),
    Command("store drop", store.StoreDrop, "features.store.removal:drop_dataset"),
    Command("store gc", store.StoreGc, "features.store.garbage:collect_garbage"),
    Command("config", training.Config, "trainer.defaults:model_defaults", "trainer.defaults:print_defaults"),
    Command("train captioner", training.TrainCaptioner, "trainer.training:train_captioner"),
    Command("train captcha", training.TrainCaptcha, "trainer.training_words:train_captcha"),
    Command("evaluate", inference.Evaluate, "trainer.evaluation:evaluate", "trainer.evaluation:print_evaluation"),
    Command("caption", inference.Caption, "trainer.captioning:caption", "trainer.captioning:print_captions"),
    Command("recognize", inference.Recognize, "trainer.reading:recognize", "trainer.reading:print_readings"),
    Command("predict captions", inference.PredictCaptions, "trainer.predicting:predict_captions"),
    Command("predict captcha", inference.PredictCaptcha, "trainer.predicting_words:predict_captcha"),
    Command("export", inference.Export, "trainer.export:export_run"),
    Command(
        "experiment run",
        workflows.ExperimentRun,
        "workflows.experiments.running:run_experiment",
        "workflows.experiments.running:print_experiment",
    ),
    Command(
        "experiment report",
        workflows.ExperimentReport,
        "workflows.experiments.reporting:report_experiment",
        "workflows.experiments.reporting:print_report",
    ),
    Command("retrain", workflows.Retrain, "workflows.retraining:retrain", "workflows.retraining:print_retrained"),
    Command("models ls", models.ModelsLs, "features.store.models:list_models", "features.store.models:print_models"),
    Command("models show", models.ModelsShow, "features.store.models:show_model", "features.store.models:print_model"),
    Command("models promote", models.ModelsPromote, "features.store.models:promote_model"),
    Command("models rollback", models.ModelsRollback, "features.store.models:rollback_model"),
)
