"""The same program and the same points, with RabbitMQ between the two services."""

from __future__ import annotations

from collections.abc import Iterator

import circuit
import pytest
from test_crash_matrix import Matrix

import rooms
from eventmill.testing.crash import POINTS, Crash

CELLS = [
    Crash(point, nth)
    for point in (*POINTS, *circuit.PROGRAM_POINTS)
    if not point.startswith("checkpoint.")
    for nth in (1, 2, 7)
]


@pytest.fixture(scope="module")
def matrix(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq_server: str, rabbitmq_management: str
) -> Iterator[Matrix]:
    with rooms.virtual_host(rabbitmq_server, rabbitmq_management) as broker:
        matrix = Matrix(tmp_path_factory.mktemp("rabbitmq"), CELLS, broker)
        yield matrix
        matrix.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_everything_once_and_in_order_whenever_it_is_killed(matrix: Matrix, cell: Crash) -> None:
    report = matrix[cell]
    if cell.nth == 1:
        assert report.kills >= 1
    assert report.lives == report.kills + 1
