"""What a person looks at: one HTML page made from `result.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lavolta.report.page import write_report as write_report
    from lavolta.report.schema import RESULT_FORMAT as RESULT_FORMAT
    from lavolta.report.schema import Result as Result
    from lavolta.report.schema import load_result as load_result
    from lavolta.report.schema import parse_result as parse_result

__all__ = ["RESULT_FORMAT", "Result", "load_result", "parse_result", "write_report"]


def __getattr__(name: str) -> object:
    # Reading the schema costs pydantic; `import lavolta.report` alone should not.
    if name == "write_report":
        from lavolta.report.page import write_report

        return write_report
    if name in __all__:
        from lavolta.report import schema

        return getattr(schema, name)
    raise AttributeError(f"module 'lavolta.report' has no attribute {name!r}")
