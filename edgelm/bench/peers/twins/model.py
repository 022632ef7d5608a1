"""The PyTorch twin of ``edgelm/model/reference.py``: a stack of the twins of cells, same tensor names.

``forward`` works on segments [B,T] of continuing streams; the state after a segment is handed to the
next, not differentiated across.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgelm.bench.peers.twins.functions import State, rms_norm
from edgelm.bench.peers.twins.table import twin_of
from edgelm.cells.gated_delta.paper import CONV_WIDTH
from edgelm.model.config import ModelConfig


class Layer(nn.Module):
    """A mixer and a feed-forward part, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.mixer, self.ffn = (twin_of(cell, config.n_layers) for cell in (config.mixer, config.ffn))

    def forward(
        self, x: Tensor, starts: Tensor, same_doc: Tensor, state: State, max_awake: int
    ) -> tuple[Tensor, State, Tensor]:
        """x [B,T,D] to the stream after the layer, the state of both parts, and the activations a [B,T,M] of the
        blocks."""
        y, after = self.mixer(x, starts, same_doc, state)
        x = x + y
        if hasattr(self.ffn, "state_shapes"):
            y, own, a = self.ffn(x, starts, state)
            return x + y, after | own, a
        y, a = self.ffn(x, max_awake)
        return x + y, after, a

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one row's state."""
        return self.mixer.state_shapes() | (self.ffn.state_shapes() if hasattr(self.ffn, "state_shapes") else {})


class Model(nn.Module):
    """Embedding, layers, final norm; the head is the embedding, or a matrix of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.randn(config.vocab_size, config.d_model) * 0.03)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.final_norm = nn.Parameter(torch.ones(config.d_model))
        if config.norm == "layer":
            self.final_norm_bias = nn.Parameter(torch.zeros(config.d_model))
        if not config.tied:
            self.head = nn.Parameter(torch.randn(config.vocab_size, config.d_model) * 0.03)

    @property
    def output_matrix(self) -> Tensor:
        """The matrix [V,D] whose products with the hidden vectors are the logits."""
        return self.embed if self.config.tied else self.head

    def initial_state(self, rows: int) -> list[State]:
        """Empty states of every layer for ``rows`` streams."""
        shapes = [layer.state_shapes() for layer in self.layers]
        return [{n: torch.zeros(rows, *s, device=self.embed.device) for n, s in part.items()} for part in shapes]

    def embedding(self, ids: Tensor, states: list[State]) -> Tensor:
        """ids [B,T] to x [B,T,D]; ``states`` is what was left by the tokens before, for those who look back."""
        return F.embedding(ids, self.embed)

    def forward(
        self, ids: Tensor, starts: Tensor, same_doc: Tensor, states: list[State], max_awake: int
    ) -> tuple[Tensor, list[State], list[Tensor]]:
        """ids [B,T] to normalised hidden vectors [B,T,D], the states after, and a [B,T,M] per layer.

        starts [B,T]: the token begins a document. same_doc [B,T,3]: the tokens 3, 2, 1 before belong to
        the same document (``document_masks``).
        """
        x = self.embedding(ids, states)
        new_states, activations = [], []
        left: State = {}
        for layer, state in zip(self.layers, states, strict=True):
            x, after, a = layer(x, starts, same_doc, state | left, max_awake)
            left = {name: after.pop(name) for name in getattr(layer.mixer, "LEAVES", ())}
            new_states.append(after)
            activations.append(a)
        return self._last_norm(x), new_states, activations

    def _last_norm(self, x: Tensor) -> Tensor:
        config = self.config
        if config.norm == "rms":
            return rms_norm(x, self.final_norm, config.norm_eps)
        return F.layer_norm(x.float(), (config.d_model,), self.final_norm, self.final_norm_bias, config.norm_eps)

    def extra_loss(self) -> Tensor | float:
        """What layer parts add to the loss of the last ``forward``."""
        return sum(layer.ffn.extra_loss() for layer in self.layers if hasattr(layer.ffn, "extra_loss"))


def document_masks(ids: Tensor, doc_id: int, carried: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """starts [B,T], same_doc [B,T,3], and the last three starts [B,3] to carry to the next segment.

    A document begins at its end-of-document id: ``doc_id`` ends one text and is the first input of the next.
    """
    starts = ids == doc_id
    width = CONV_WIDTH - 1
    history = torch.cat([carried, starts], 1)
    steps = ids.shape[1]
    same = []
    for back in range(width, 0, -1):
        # Position t sees t-back if none of t-back+1 .. t starts a document.
        crossed = torch.zeros_like(starts)
        for i in range(back):
            crossed |= history[:, width - i : width - i + steps]
        same.append(~crossed)
    return starts, torch.stack(same, -1).float(), history[:, -width:]
