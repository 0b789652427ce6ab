from pathlib import Path

import pytest
from omegaconf import OmegaConf

from maskedclip_composer.callbacks.config import TrackingConfig, artifact_root
from maskedclip_composer.errors import UserError


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"picture_interval": "often"}, "tracking.picture_interval=often"),
        ({"picture_interval": "0ep"}, "tracking.picture_interval=0ep"),
        ({"picture_interval": "5sp"}, "tracking.picture_interval=5sp"),
        ({"dashboard_interval": "often"}, "tracking.dashboard_interval=often"),
        ({"register": ""}, "tracking.register=''"),
        ({"register": " "}, "tracking.register=' '"),
        ({"register": "a/b"}, "tracking.register='a/b'"),
        ({"register": "retina", "mlflow": False}, "tracking.register=retina, but tracking.mlflow=false"),
        ({"num_pictures": 0}, "tracking.num_pictures=0"),
        ({"diagnostics_interval": 0}, "tracking.diagnostics_interval=0"),
        ({"experiment": ""}, "tracking.experiment is empty"),
        ({"tracking_uri": "htp://host:5000"}, "tracking.tracking_uri=htp://host:5000"),
    ],
)
def test_a_wrong_setting_is_named_with_a_remedy(setting, message):
    with pytest.raises(UserError, match=message) as caught:
        TrackingConfig(**setting)
    assert any(word in str(caught.value) for word in ("Use", "Name", "Set"))


def test_a_refused_uri_is_printed_without_its_password():
    with pytest.raises(UserError) as caught:
        TrackingConfig(tracking_uri="htp://me:hunter2@host")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "https://host", "sqlite:////tmp/a.db", "postgresql+psycopg2://u@h/db", "databricks"],
)
def test_uris_that_mlflow_knows_are_accepted(uri):
    assert TrackingConfig(tracking_uri=uri).tracking_uri == uri


@pytest.mark.parametrize("none", ["", None])
def test_pictures_can_be_switched_off(none):
    assert not TrackingConfig(picture_interval=none).picture_interval


def test_the_config_goes_through_omegaconf():
    merged = OmegaConf.merge(OmegaConf.structured(TrackingConfig), {"tags": {"paper": "yes"}, "picture_interval": None})
    assert OmegaConf.to_object(merged) == TrackingConfig(tags={"paper": "yes"}, picture_interval=None)


def test_artifacts_lie_beside_the_runs_unless_a_server_keeps_them(tmp_path: Path):
    assert artifact_root("sqlite:///mlflow.db", tmp_path) == (tmp_path / "mlartifacts").as_uri()
    assert artifact_root("postgresql+psycopg2://h/db", tmp_path) == (tmp_path / "mlartifacts").as_uri()
    assert artifact_root("http://host:5000", tmp_path) is None
