"""The interface is what its description says: tried by schemathesis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from edgelm.serve.app import routes
from tests.serve.conftest import Start

schemathesis = pytest.importorskip("schemathesis")


def test_the_description_lists_what_is_there(start: Start) -> None:
    found = start().get("/edgelm/v1/openapi.json")
    described = {(method.upper(), path) for path, of_path in found["paths"].items() for method in of_path}
    # The page, and the description itself, are no part of it.
    assert described == {(r.method, r.path) for r in routes() if not r.path.startswith("/page") and r.path != "/"} - {
        ("GET", "/edgelm/v1/openapi.json")
    }


@pytest.mark.filterwarnings("ignore")
def test_every_operation_keeps_to_it(start: Start) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )  # fmt: skip

    running = start(learn=True)
    schema = schemathesis.openapi.from_dict(running.get("/edgelm/v1/openapi.json"))
    tried = set()
    for operation in schema.get_all_operations():
        made = operation.ok()
        if made.path == "/edgelm/v1/events":
            continue  # it has no end

        @settings(
            max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.generate], derandomize=True,
        )  # fmt: skip
        @pytest.importorskip("hypothesis").given(case=made.as_strategy())
        def keeps(case: Any) -> None:
            response = case.call(base_url=running.url, timeout=60)
            case.validate_response(
                response,
                checks=[
                    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
                ],
            )  # fmt: skip

        keeps()
        tried.add((made.method.upper(), made.path))
    assert len(tried) > 15
