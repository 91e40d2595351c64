# What native/python/module.cpp defines. Users import lavolta.runtime.engine; the single kernels are for tests.
from numpy import float32, int32, uint16, uint32
from numpy.typing import NDArray

class NativeError(RuntimeError):
    # (name of the status, sentence)
    args: tuple[str, str]

class NativeModel:
    def __init__(self, path: str, threads: int, spin_us: int, isa: str) -> None: ...
    def describe(self) -> str: ...
    def level(self) -> int: ...
    def level_count(self) -> int: ...
    def switch(self, level: int) -> int: ...
    def run(
        self, token_ids: NDArray[int32], type_ids: NDArray[int32] | None, lengths: NDArray[uint32], per_token: bool
    ) -> NDArray[float32]: ...
    def blob(self, name: str) -> bytes | None: ...
    def profile(self, enabled: bool) -> None: ...
    def explain(self) -> str: ...

def isas() -> str: ...
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
def norm(
    isa: str, x: NDArray[float32], weight: NDArray[float32], bias: NDArray[float32], eps: float
) -> NDArray[float32]: ...
def activation(isa: str, x: NDArray[float32], activation: str) -> NDArray[float32]: ...
