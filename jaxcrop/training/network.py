"""A model apart from its values: named arrays go in, a module comes out."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import jax
from flax import nnx
from jaxtyping import Array

from jaxcrop.models.layers import BatchNorm
from jaxcrop.models.segmenter import Segmenter
from jaxcrop.weights.converted import state_variables

Values = dict[str, Array]
"""Arrays by the names that parameters and statistics have in files too: "backbone.bn1.mean"."""


@dataclass(frozen=True)
class Network:
    """What makes a module of named values, inside `jit` and outside.

    Training, checkpoints and sharding work on plain dictionaries; the module is put together where
    it is called. `variables` are their names, places in the module and kinds. Networks of one
    structure are equal.
    """

    definition: nnx.GraphDef
    variables: tuple[tuple[str, tuple, type[nnx.Variable]], ...]

    @classmethod
    def of(cls, model: Segmenter) -> "Network":
        """The network of a model, which may be abstract; it keeps the mode (train, eval) it has."""
        definition, state = nnx.split(model)
        variables = (
            (".".join(map(str, path)), path, type(variable))
            for path, variable in nnx.to_flat_state(state)
        )
        return cls(definition, tuple(variables))

    def module(self, values: Values) -> Segmenter:
        """The module with these values, all of which must be given."""
        state = [(path, kind(values[name])) for name, path, kind in self.variables]
        return nnx.merge(self.definition, nnx.from_flat_state(state))

    def evaluating(self) -> "Network":
        """The same network in the mode of evaluation, whichever it has."""
        module = self._empty()
        module.eval(remat=False)  # there is no gradient
        return Network.of(module)

    @cached_property
    def moving(self) -> tuple[str, ...]:
        """The names of the statistics that a batch moves: of layers in the mode of training."""
        layers = {
            ".".join(map(str, path))
            for path, layer in nnx.iter_modules(self._empty())
            if isinstance(layer, BatchNorm) and not layer.use_running_average
        }
        return tuple(n for n in self.names(nnx.BatchStat) if n.rpartition(".")[0] in layers)

    def names(self, kind: type[nnx.Variable]) -> tuple[str, ...]:
        """The names of all variables of this kind: `nnx.Param` or `nnx.BatchStat`."""
        return tuple(name for name, _, its in self.variables if issubclass(its, kind))

    def _empty(self) -> Segmenter:
        return self.module(dict.fromkeys(name for name, _, _ in self.variables))


def values_of(model: Segmenter) -> dict[str, Array | jax.ShapeDtypeStruct]:
    """The parameters and statistics of a model by name; of an abstract one, shapes and types."""
    return {name: variable.get_value() for name, variable in state_variables(model).items()}


def statistics_of(model: Segmenter, names: Iterable[str]) -> Values:
    """The batch-normalisation statistics of these names that a model has."""
    variables = state_variables(model)
    return {name: variables[name].get_value() for name in names}
