"""What of a run is recorded, and where; and when what is recorded is a reason to warn."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.errors import UserError

SERVER_SCHEMES = ("http", "https", "databricks", "databricks-uc")
STORE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "file")


@dataclass(frozen=True, kw_only=True)
class MlflowConfig:
    """Where MLflow is, and under what a run is found there.

    Attributes:
        mlflow: Send the run to MLflow.
        tracking_uri: A server (http://host:5000) or a database (sqlite:////path/mlflow.db); null takes the environment
            variable MLFLOW_TRACKING_URI, else `<output>/mlflow.db`. User names and passwords belong into MLflow's own
            variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
        experiment: MLflow experiment; it is created when absent.
        tags: Further tags of the MLflow run.
    """

    mlflow: bool = True
    tracking_uri: str | None = None
    experiment: str = "maskedclip"
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not self.experiment:
            raise UserError('tracking.experiment is empty.\nName an experiment, for example "maskedclip".')
        if self.tracking_uri is not None and not _is_supported(self.tracking_uri):
            raise UserError(
                f"tracking.tracking_uri={redact_text(self.tracking_uri)} is none that MLflow knows.\n"
                "Use a server (http://host:5000) or a database (sqlite:////path/mlflow.db)."
            )


@dataclass(frozen=True, kw_only=True)
class TrackingConfig(MlflowConfig):
    """Metrics, pictures and MLflow. `metrics.jsonl` and the pictures are always written to the run folder too.

    Attributes:
        picture_interval: Draw a picture every so many epochs or steps, such as 1ep or 500ba, and at the end; null or
            "" draws none.
        num_pictures: Images per picture.
        diagnostics_interval: Steps between two records of `diagnostics/*`, and between two of a step's times
            (docs/costs.md).
        dashboard_interval: Write `dashboard.html` every so many epochs or steps, and at the end; null or "" writes it
            at the end alone.
        register: Model of MLflow's registry that the finished run becomes a version of; null registers nothing.
    """

    picture_interval: str | None = "1ep"
    num_pictures: int = 4
    diagnostics_interval: int = 10
    dashboard_interval: str | None = "1ep"
    register: str | None = None

    def __post_init__(self):
        super().__post_init__()
        for key, none in (
            ("picture_interval", "for no pictures"),
            ("dashboard_interval", "to write it at the end alone"),
        ):
            interval = getattr(self, key)
            if interval and not re.fullmatch(r"[1-9]\d*(ep|ba)", interval):
                raise UserError(
                    f"tracking.{key}={interval} is no interval.\n"
                    f"Use epochs or steps such as 1ep or 500ba, or null {none}."
                )
        self._check_register()
        for key in ("num_pictures", "diagnostics_interval"):
            if getattr(self, key) < 1:
                raise UserError(f"tracking.{key}={getattr(self, key)} is not positive.\nUse 1 or more.")

    def _check_register(self) -> None:
        if self.register is None:
            return
        # MLflow 2.22 refuses an empty name, and others that its addresses cannot hold.
        if not re.fullmatch(r"[^/:%]*[^/:%\s][^/:%]*", self.register):
            raise UserError(
                f"tracking.register={self.register!r} is no name of a model.\n"
                "Use one without slash, colon and per cent sign, or null to register nothing."
            )
        if not self.mlflow:
            raise UserError(
                f"tracking.register={self.register}, but tracking.mlflow=false, so there is no registry.\n"
                "Set tracking.mlflow=true, or tracking.register=null."
            )


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    """When a number of `diagnostics/*` is a reason to warn; null does not watch it (docs/reliability.md).

    Attributes:
        grace: Steps without a warning, from the start of the run.
        logit_scale: Share of its limit at which the logit scale has run away.
        variance: Share of its best under which a variance of features has collapsed.
        effective_rank: Share of its best, both above 1, under which an effective rank has.
        retrieval: Share of its best, both above chance, under which retrieval within the batch has.
    """

    grace: int = 1000
    logit_scale: float | None = 0.99
    variance: float | None = 0.02
    effective_rank: float | None = 0.1
    retrieval: float | None = 0.2

    def __post_init__(self):
        if self.grace < 0:
            raise UserError(f"watch.grace={self.grace} is negative.\nUse 0 to warn from the first step.")
        for key in ("logit_scale", "variance", "effective_rank", "retrieval"):
            value = getattr(self, key)
            if value is not None and not 0 < value <= 1:
                raise UserError(f"watch.{key}={value} is no share, above 0 and at most 1.\nUse null not to watch it.")


def artifact_root(tracking_uri: str, output: Path) -> str | None:
    """Return where a new experiment keeps its artifacts: beside the runs, or None where a server decides.

    Without a server MLflow would put them into `mlruns` of the working directory.
    """
    if urlsplit(tracking_uri).scheme.split("+")[0] in (*SERVER_SCHEMES, "file"):
        return None
    return (output.resolve() / "mlartifacts").as_uri()


def _is_supported(uri: str) -> bool:
    # SQLAlchemy names a driver after a plus: postgresql+psycopg2.
    return uri == "databricks" or urlsplit(uri).scheme.split("+")[0] in (*SERVER_SCHEMES, *STORE_SCHEMES)
