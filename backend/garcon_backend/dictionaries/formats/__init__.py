"""Each library's layout, one file a format. Documentation, errors and tests are made from this table.

Not here: what is computed with what was read.
"""

from garcon_backend.dictionaries.formats import (
    circuit_tracer,
    dictionary_learning,
    gemma_scope,
    llama_scope,
    llama_scope_first,
    openai,
    saelens,
    sparsify,
)
from garcon_backend.dictionaries.formats.format import Format

FORMATS: tuple[Format, ...] = (
    saelens.FORMAT,
    sparsify.FORMAT,
    dictionary_learning.FORMAT,
    circuit_tracer.FORMAT,
    gemma_scope.FORMAT,
    llama_scope.FORMAT,
    llama_scope_first.FORMAT,
    openai.FORMAT,
)

__all__ = ["FORMATS", "Format"]
