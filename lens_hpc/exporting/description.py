"""What whoever scores with an exported model must know of its inputs: model.json, which is in the
metadata of each file, too."""

import json
from collections.abc import Mapping
from typing import Any

from lens_hpc._version import __version__
from lens_hpc.model.trained import TrainedModel
from lens_hpc.scoring.calibration import Calibration

Description = dict[str, Any]


def describe_inputs(trained: TrainedModel, calibration: Calibration | None) -> Description:
    """Return bands, units, features and all else by name, plain values for JSON."""
    manifest, settings = trained.manifest, trained.settings
    return {
        "lens_hpc": __version__,
        "dataset": manifest.name,
        "bands": list(manifest.bands),
        "height": manifest.height,
        "width": manifest.width,
        "pixel_scale_arcsec": manifest.pixel_scale_arcsec,
        "units": manifest.units,
        "zero_point": manifest.zero_point,
        "gain": manifest.gain,
        "stored_dtype": manifest.dtype,
        "features": list(manifest.features) if trained.sees_features else [],
        "missing_feature": "NaN",
        "image_scale": settings.data.image_scale,
        "feature_scaling": settings.model.feature_scaling,
        "normalisation": "inside the graph: images and features are given as they are stored",
        "output": "logit; NaN where a cutout cannot be scored",
        # Where that share of the objects are lenses, the probability of a logit z is
        # 1 / (1 + exp(-z / temperature)).
        "temperature": calibration.temperature if calibration else None,
        "prevalence": calibration.prevalence if calibration else None,
    }


def as_texts(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as texts, as metadata of ONNX and safetensors are: JSON, but for
    words."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in description.items()
    }
