# What native/python/module.cpp defines. Users import lavolta.runtime.engine; the single kernels are for tests.
from collections.abc import Callable, Sequence

from numpy import float32, int8, int32, uint8, uint16, uint32
from numpy.typing import NDArray

class NativeError(RuntimeError):
    # (name of the status, sentence)
    args: tuple[str, str]

class NativeModel:
    def __init__(self, path: str, threads: int, spin_us: int, isa: str, cores: Sequence[int]) -> None: ...
    def describe(self) -> str: ...
    def level(self) -> int: ...
    def level_count(self) -> int: ...
    def layer_count(self) -> int: ...
    def switch(self, level: int) -> int: ...
    def run(
        self, token_ids: NDArray[int32], type_ids: NDArray[int32] | None, lengths: NDArray[uint32], per_token: bool
    ) -> NDArray[float32]: ...
    def run_within(
        self,
        token_ids: NDArray[int32],
        type_ids: NDArray[int32] | None,
        lengths: NDArray[uint32],
        per_token: bool,
        deadline_ms: float,
        levels: NDArray[uint32],
        clock: Callable[[], int] | None,
    ) -> tuple[NDArray[float32], float, bool]: ...
    def calibrate(self, tokens: NDArray[uint32], repetitions: int, clock: Callable[[], int] | None) -> None: ...
    def plan(self) -> str | None: ...
    def set_plan(self, text: str) -> None: ...
    def cancel(self) -> None: ...
    def blob(self, name: str) -> bytes | None: ...
    def profile(self, enabled: bool) -> None: ...
    def explain(self) -> str: ...

class NativeSession:
    def __init__(self, model: NativeModel, max_tokens: int, columns: int) -> None: ...
    def append(self, token_ids: NDArray[int32], wants_logits: bool) -> NDArray[float32] | None: ...
    def length(self) -> int: ...
    def truncate(self, tokens: int) -> None: ...

def cores(folder: str, threads: int) -> str: ...
def isas() -> str: ...
def peak(isa: str) -> float: ...
def linear(
    isa: str,
    values: NDArray[float32],
    columns: NDArray[uint16],
    runs: NDArray[uint32],
    run_ptr: NDArray[uint32],
    bias: NDArray[float32],
    x: NDArray[float32],
    residual: NDArray[float32] | None,
    activation: str,
    gather: bool = True,
) -> NDArray[float32]: ...
def quantize(isa: str, x: NDArray[float32]) -> tuple[bytes, NDArray[float32]]: ...
def linear_int8(
    isa: str,
    values: NDArray[int8],
    columns: NDArray[uint16],
    runs: NDArray[uint32],
    run_ptr: NDArray[uint32],
    scale: NDArray[float32],
    bias: NDArray[float32],
    u: NDArray[uint8],
    token_scale: NDArray[float32],
    residual: NDArray[float32] | None,
    activation: str,
) -> NDArray[float32]: ...
def dense(
    isa: str, weight: NDArray[float32], bias: NDArray[float32], x: NDArray[float32], activation: str
) -> NDArray[float32]: ...
def attention(
    isa: str,
    q: NDArray[float32],
    k: NDArray[float32],
    v: NDArray[float32],
    start: int,
    tokens: int,
    scale: float,
    causal: bool,
    keep: float,
) -> NDArray[float32]: ...
def cached_attention(
    isa: str, q: NDArray[float32], k: NDArray[float32], v: NDArray[float32], scale: float
) -> NDArray[float32]: ...
def norm(
    isa: str, x: NDArray[float32], weight: NDArray[float32], bias: NDArray[float32] | None, eps: float
) -> NDArray[float32]: ...
def gate(isa: str, gate: NDArray[float32], values: NDArray[float32], activation: str) -> NDArray[float32]: ...
def rotate(isa: str, x: NDArray[float32], cos: NDArray[float32], sin: NDArray[float32]) -> NDArray[float32]: ...
def token_linear(
    isa: str,
    values: NDArray[float32],
    columns: NDArray[uint16],
    runs: NDArray[uint32],
    run_ptr: NDArray[uint32],
    bias: NDArray[float32],
    x: NDArray[float32],
    residual: NDArray[float32] | None,
    activation: str,
) -> NDArray[float32]: ...
def token_linear_int8(
    isa: str,
    values: NDArray[int8],
    columns: NDArray[uint16],
    runs: NDArray[uint32],
    run_ptr: NDArray[uint32],
    scale: NDArray[float32],
    bias: NDArray[float32],
    x: NDArray[float32],
    residual: NDArray[float32] | None,
    activation: str,
) -> NDArray[float32]: ...
def token_dense(
    isa: str, weight: NDArray[float32], bias: NDArray[float32], x: NDArray[float32], activation: str
) -> NDArray[float32]: ...
def token_norm(
    isa: str, x: NDArray[float32], weight: NDArray[float32], bias: NDArray[float32] | None, eps: float
) -> NDArray[float32]: ...
