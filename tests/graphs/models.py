"""Models that the package has never heard of: four of transformers, three of the forecasting literature, all tiny."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

Example = tuple[Tensor, ...]


class _Call(nn.Module):
    """A model of transformers with plain tensors in and one tensor out."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], output: str) -> None:
        super().__init__()
        self.model, self.names, self.output = model, names, output

    def forward(self, *inputs: Tensor) -> Tensor:
        return getattr(self.model(**dict(zip(self.names, inputs, strict=True))), self.output)


def _sizes() -> dict[str, Any]:
    return {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}


def bert(attention: str = "sdpa") -> nn.Module:
    config = hf.BertConfig(
        vocab_size=90, max_position_embeddings=128, attn_implementation=attention, **_sizes()
    )
    return _Call(
        hf.BertModel(config, add_pooling_layer=False), ("input_ids", "attention_mask"), "last_hidden_state"
    )


def vit() -> nn.Module:
    config = hf.ViTConfig(image_size=32, patch_size=4, num_channels=3, **_sizes())
    return _Call(hf.ViTForImageClassification(config), ("pixel_values",), "logits")


def llama() -> nn.Module:
    config = hf.LlamaConfig(vocab_size=90, num_key_value_heads=2, use_cache=False, **_sizes())
    return _Call(hf.LlamaForCausalLM(config), ("input_ids", "attention_mask"), "logits")


def wav2vec2() -> nn.Module:
    config = hf.Wav2Vec2Config(
        conv_dim=(16, 16), conv_stride=(4, 2), conv_kernel=(8, 3), num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, **_sizes(),
    )  # fmt: skip
    return _Call(hf.Wav2Vec2Model(config), ("input_values",), "last_hidden_state")


class _Attention(nn.Module):
    """Multi-head attention as forecasting code writes it, with Einsum; ``sparse`` keeps the busiest queries only."""

    def __init__(self, width: int, heads: int, *, sparse: bool = False, scaled: bool = False) -> None:
        super().__init__()
        self.heads, self.sparse, self.scaled = heads, sparse, scaled
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        causal: bool = False,
        tau: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> Tensor:
        (b, n, d), m, h = x.shape, context.shape[1], self.heads
        q = self.query(x).view(b, n, h, d // h)
        k, v = self.key(context).view(b, m, h, d // h), self.value(context).view(b, m, h, d // h)
        centre = v.mean(1)[:, :, None]
        scores = torch.einsum("blhe,bshe->bhls", q, k)
        if tau is not None and delta is not None:  # de-stationary attention
            scores = scores * tau[:, None, None] + delta[:, None, None]
        if causal:
            later = torch.arange(m)[None, :] > torch.arange(n)[:, None]
            scores = scores.masked_fill(later, -1e9)
        weights = torch.softmax(scores / (d // h) ** 0.5, -1)
        mixed = torch.einsum("bhls,bshd->bhld", weights, v)
        if self.sparse:  # ProbSparse: a query that attends nowhere in particular gets the mean of the values
            busy = scores.amax(-1) - scores.mean(-1)
            mixed = torch.where((busy > busy.mean(-1, keepdim=True))[..., None], mixed, centre)
        mixed = mixed.transpose(1, 2)
        return self.out(mixed.reshape(b, n, d))


class _Block(nn.Module):
    """Post-norm, the feed-forward as convolutions of width 1: as in the Informer and what follows it."""

    def __init__(self, width: int, heads: int, *, cross: bool = False, **options: bool) -> None:
        super().__init__()
        self.attention = _Attention(width, heads, **options)
        self.cross = _Attention(width, heads) if cross else None
        self.up, self.down = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(2 * width, width, 1)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, x: Tensor, memory: Tensor | None = None, causal: bool = False, **factors: Any
    ) -> Tensor:
        x = self.norms[0](x + self.attention(x, x, causal, **factors))
        if self.cross is not None and memory is not None:
            x = self.norms[1](x + self.cross(x, memory))
        y = self.down(torch.relu(self.up(x.transpose(1, 2)))).transpose(1, 2)
        return self.norms[2](x + y)


class Forecaster(nn.Module):
    """Encoder and decoder of a forecasting Transformer: ``x [B, L, C]`` -> ``[B, 8, C]``.

    Args:
        kind: ``plain`` (Vaswani), ``informer`` (ProbSparse attention, distilling between the layers), ``nonstationary``
            (normalised series, de-stationary attention).
    """

    def __init__(self, kind: str, channels: int = 3, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.kind = kind
        self.read = nn.Conv1d(channels, width, 3, padding=1, padding_mode="replicate")
        sparse = kind == "informer"
        self.encoder = nn.ModuleList(_Block(width, heads, sparse=sparse) for _ in range(3))
        self.distill = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.decoder = nn.ModuleList(_Block(width, heads, cross=True) for _ in range(2))
        self.factors = nn.Linear(2 * channels, 2)
        self.write = nn.Linear(width, channels)

    def _embed(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])[:, None] / 10.0 ** torch.arange(8)[None, :]
        return self.read(x.transpose(1, 2)).transpose(1, 2) + torch.cat([place.sin(), place.cos()], -1)

    def forward(self, x: Tensor) -> Tensor:
        mean, factors = torch.zeros_like(x[:, :1]), {}
        scale = torch.ones_like(mean)
        if self.kind == "nonstationary":
            mean, scale = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
            learned = self.factors(torch.cat([mean, scale], -1)[:, 0])
            factors = {"tau": learned[:, :1].exp(), "delta": learned[:, 1:]}
        x = (x - mean) / scale
        memory = self._embed(x)
        for index, block in enumerate(self.encoder):
            memory = block(memory, **factors)
            if self.kind == "informer" and index < len(self.distill):
                memory = nn.functional.max_pool1d(
                    nn.functional.elu(self.distill[index](memory.transpose(1, 2))), 3, 2, 1
                ).transpose(1, 2)
        y = self._embed(torch.cat([x[:, -8:], torch.zeros_like(x[:, :8])], 1))
        for block in self.decoder:
            y = block(y, memory, causal=True, **factors)
        return (self.write(y) * scale + mean)[:, -8:]


def ids(batch: int, tokens: int) -> Example:
    return torch.randint(1, 90, (batch, tokens)), torch.ones(batch, tokens, dtype=torch.int64)


#: name -> (model, example inputs of a batch and length, names of the inputs, the dynamic axes of each)
MODELS: dict[
    str, tuple[Callable[[], nn.Module], Callable[[int, int], Example], list[str], list[list[int]]]
] = {
    "bert-eager": (lambda: bert("eager"), ids, ["input_ids", "attention_mask"], [[0, 1], [0, 1]]),
    "bert": (bert, ids, ["input_ids", "attention_mask"], [[0, 1], [0, 1]]),
    "llama": (llama, ids, ["input_ids", "attention_mask"], [[0, 1], [0, 1]]),
    "vit": (vit, lambda b, n: (torch.randn(b, 3, 32, 32),), ["pixel_values"], [[0]]),
    "wav2vec2": (wav2vec2, lambda b, n: (torch.randn(b, 16 * n),), ["input_values"], [[0, 1]]),
    **{
        kind: (lambda kind=kind: Forecaster(kind), lambda b, n: (torch.randn(b, n, 3),), ["x"], [[0, 1]])  # type: ignore[misc]
        for kind in ("plain", "informer", "nonstationary")
    },
}


def build(name: str) -> nn.Module:
    """A model with random weights that make attention and tokens matter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = MODELS[name][0]().eval()
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if weight.dim() > 1 and "conv" not in key:
                    weight.normal_(0, weight.shape[-1] ** -0.5 * 1.3)
    return model


def export(
    name: str, path: Any, *, opset: int = 18, old: bool = False, fixed: bool = False, length: int = 24
) -> None:
    """Write a model as ONNX, by torch's new exporter or its old one."""
    _, example, names, axes = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        args = example(2, length)
    module = build(name)
    common = {"input_names": names, "output_names": ["y"], "opset_version": opset}
    with torch.no_grad():
        if old:
            dynamic = None if fixed else {
                own: {axis: f"{own}_{axis}" for axis in found} for own, found in zip(names, axes, strict=True)
            }  # fmt: skip
            torch.onnx.export(module, args, path, dynamo=False, dynamic_axes=dynamic, **common)
            return
        found = tuple(dict.fromkeys(own, torch.export.Dim.DYNAMIC) for own in axes)
        variadic = isinstance(module, _Call)
        shapes = None if fixed else (found,) if variadic else found
        program = torch.onnx.export(module, args, dynamo=True, dynamic_shapes=shapes, verbose=False, **common)
        program.save(path, external_data=False)


def save_program(name: str, path: Any) -> None:
    """Write a model with ``torch.export.save``."""
    _, example, _, axes = MODELS[name]
    module = build(name)
    found = tuple(dict.fromkeys(own, torch.export.Dim.DYNAMIC) for own in axes)
    shapes = (found,) if isinstance(module, _Call) else found
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        program = torch.export.export(module, example(2, 24), dynamic_shapes=shapes, strict=False)
    torch.export.save(program, path)
