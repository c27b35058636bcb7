"""A family outside tsmerge-export, of the model beside it: batch and length dynamic, merging after each attention."""

import numpy as np
from transformers import BertConfig

from example_family.model import PointEncoderModel
from tsmerge_export.families.base import Component, Hints, MergePoints, TensorSpec
from tsmerge_export.families.hf import TransformersFamily, eager_attention


class Model(Component):
    name, hints = "model", Hints(protect_last=1)
    inputs = (TensorSpec("context", "float32", ("batch", "length")),)

    def __init__(self, model):
        self.outputs = (TensorSpec("forecast", "float32", ("batch", model.config.horizon)),)

    def module(self, model):
        return eager_attention(model)

    def eager(self, model, inputs):
        return {"forecast": model(inputs["context"])}

    def from_series(self, model, series):
        return {"context": np.arcsinh(np.nan_to_num(series))}


class PointEncoder(TransformersFamily):
    name, model_class, config_class, needs = "point-encoder", PointEncoderModel, BertConfig, ("horizon",)

    def components(self, model):
        return (Model(model),)

    def merge_points(self, model):
        return MergePoints(len(model.encoder.layer), protect_last=1)

    def instrument(self, model, run):  # every attention's output, the residual stream, is merged
        hooks = [model.encoder.register_forward_pre_hook(lambda *_: run.begin(None))]
        for i, layer in enumerate(model.encoder.layer):
            merge = lambda _, args, out, i=i: (run.merge(i, out[0]), *out[1:])  # noqa: E731
            hooks.append(layer.attention.register_forward_hook(merge))
        return hooks

    def horizon(self, model):
        return model.config.horizon

    def context(self, model):
        return 64

    def pipeline(self, model):
        return super().pipeline(model) | {"quantiles": [0.5]}

    def forecast(self, model, run, series, seed=0):
        return np.sinh(run(Model(model).from_series(model, series))["forecast"])[:, None]
