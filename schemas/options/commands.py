"""Lists the commands of capt: name, options, and the functions that run them and print their results."""

from dataclasses import dataclass

from schemas.options import data, inference, prepare, serving, store, training, workflows
from schemas.options.base import Options


@dataclass(frozen=True)
class Command:
    """One command.

    `runs` is the `module:function` that accepts the options and returns the object that `--json` prints. `prints` is
    the `module:function`, or the function beside `runs`, that prints the result; if empty, capt prints a plain table.
    """

    name: str
    options: type[Options]
    runs: str
    prints: str = ""

    @property
    def function(self) -> str:
        """The name of the command in Python: `prepare_features`."""
        return self.name.replace(" ", "_")

    @property
    def group(self) -> str:
        """The group of the command; empty without one. `fetch urls` has none, because `fetch` is a command."""
        first = self.name.partition(" ")[0]
        return first if first in GROUPS else ""


GROUPS = {
    "synth": "Generate synthetic datasets, and small samples of published ones.",
    "prepare": "Compute features, caption tokens and CAPTCHA pixels, and write them to a store.",
    "store": "Inspect, export and maintain a store.",
    "train": "Train a model on the tables of a store.",
    "predict": "Run batch inference and write the predictions to a file.",
    "experiment": "Run and compare a grid of training runs.",
    "models": "Manage the model registry of a store.",
}

_PRINT_RESULTS = "trainer.inference.image_inputs:print_results"

# In the order of the workflow. The help has the same order.
COMMANDS = (
    Command("demo", workflows.Demo, "workflows.demo.command:demo", "print_demo"),
    Command("fetch", data.Fetch, "pipelines.fetch.fetch_dataset:fetch_dataset", "print_fetched"),
    Command("fetch urls", data.FetchUrls, "pipelines.fetch_urls.command:fetch_urls", "print_fetched"),
    Command("inspect", data.Inspect, "pipelines.inspection.inspect_dataset:inspect_dataset", "print_inspection"),
    Command("synth scenes", data.SynthScenes, "features.synthetic.scenes.dataset:synth_scenes"),
    Command("synth captcha", data.SynthCaptcha, "features.synthetic.captchas.dataset:synth_captcha"),
    Command("synth sample", data.SynthSample, "pipelines.sample_dataset:synth_sample"),
    Command("prepare features", prepare.PrepareFeatures, "pipelines.prepare_features:prepare_features"),
    Command("prepare captions", prepare.PrepareCaptions, "pipelines.prepare_captions:prepare_captions"),
    Command("prepare captcha", prepare.PrepareCaptcha, "pipelines.prepare_captcha:prepare_captcha", "print_prepared"),
    Command("tokenize", prepare.Tokenize, "trainer.inference.tokenize_captions:tokenize", "print_tokens"),
    Command("store ls", store.StoreLs, "features.store.stats:list_store", "workflows.print_store:print_list"),
    Command("store stats", store.StoreStats, "features.store.stats:store_stats", "workflows.print_store:print_stats"),
    Command("store show", store.StoreShow, "workflows.show_examples:show_examples", "print_examples"),
    Command("store words", store.StoreWords, "workflows.show_words:show_words", "print_words"),
    Command("store export", store.StoreExport, "pipelines.store_export.command:export_store", "print_exported"),
    Command("store verify", store.StoreVerify, "features.store.verification:verify_store"),
    Command("store compact", store.StoreCompact, "features.store.compaction:compact_store"),
    Command("store drop", store.StoreDrop, "features.store.drop:drop_dataset"),
    Command("store gc", store.StoreGc, "features.store.garbage_collection:collect_garbage"),
    Command("config", training.Config, "trainer.tasks.default_config:model_defaults", "print_defaults"),
    Command("train captioner", training.TrainCaptioner, "trainer.tasks.captioning:train_captioner"),
    Command("train captcha", training.TrainCaptcha, "trainer.tasks.captcha:train_captcha", "print_trained"),
    Command("evaluate", inference.Evaluate, "trainer.evaluation.evaluate:evaluate", "print_evaluation"),
    Command("report", inference.Report, "workflows.run_report:report_run", "print_report"),
    Command("caption", inference.Caption, "trainer.inference.caption_images:caption", _PRINT_RESULTS),
    Command("recognize", inference.Recognize, "trainer.inference.recognize_images:recognize", "print_recognized"),
    Command("predict captions", inference.PredictCaptions, "trainer.inference.predict_captions:predict_captions"),
    Command("predict captcha", inference.PredictCaptcha, "trainer.inference.predict_captcha:predict_captcha"),
    Command("export", inference.Export, "trainer.export.saved_model:export_run"),
    Command("serve", serving.Serve, "workflows.serving.command:serve", "print_served"),
    Command("experiment run", workflows.ExperimentRun, "workflows.experiments.run:run_experiment", "print_experiment"),
    Command(
        "experiment report",
        workflows.ExperimentReport,
        "workflows.experiments.report:report_experiment",
        "print_report",
    ),
    Command("reproduce", workflows.Reproduce, "workflows.reproduction.run:reproduce", "print_reproduction"),
    Command("retrain", workflows.Retrain, "workflows.retraining.pipeline:retrain", "print_retrained"),
    Command("models ls", workflows.ModelsLs, "workflows.model_registry:list_models", "print_models"),
    Command("models show", workflows.ModelsShow, "workflows.model_registry:show_model", "print_model"),
    Command("models promote", workflows.ModelsPromote, "workflows.model_registry:promote_model"),
    Command("models rollback", workflows.ModelsRollback, "workflows.model_registry:rollback_model"),
)
