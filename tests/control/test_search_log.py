"""What a killed search still knows of the generation in which it died."""

import numpy as np
import pytest

from stages.artifacts.workspace import Workspace
from stages.control.restarts import Restarts
from stages.control.search import SearchShape
from stages.control.search_log import PENDING, SearchLog
from stages.control.watch import ranked
from stages.errors import NumbersBad
from stages.events import Silent


def test_both_heats_of_the_unfinished_generation_are_kept_and_a_cut_line_is_not(tmp_path):
    workspace = Workspace.open(tmp_path / "w", create=True)
    with workspace.lock("control"):
        partial = workspace.begin("control", "f" * 64)
        log = SearchLog(partial, Silent())
        assert log.pending("heat") == {}
        log.add_pending("heat", 0, [(1.5, 40), (2.5, 44)])
        log.add_pending("heat", 1, [(3.5, 48)])
        log.add_pending("final", 0, [(9.0, 50)])
        with (partial.path / PENDING).open("ab") as file:
            file.write(b'{"of":"final","ta')
        again = SearchLog(workspace.begin("control", "f" * 64), Silent())
        assert again.pending("heat") == {0: [[1.5, 40], [2.5, 44]], 1: [[3.5, 48]]}
        assert again.pending("final") == {0: [[9.0, 50]]}
        assert again.pending("another generation") == {}
        again.add_pending("final", 1, [(8.0, 51)])
        assert again.pending("final") == {0: [[9.0, 50]], 1: [[8.0, 51]]}


def test_a_logged_generation_needs_its_pieces_no_more(tmp_path):
    workspace = Workspace.open(tmp_path / "w", create=True)
    search = Restarts([SearchShape(num_parameters=2, population=4, sigma=0.5)], trial=1)
    with workspace.lock("control"):
        partial = workspace.begin("control", "f" * 64)
        log = SearchLog(partial, Silent())
        log.add_pending("heat", 0, [(1.5, 40)])
        asked = search.ask()
        search.tell(np.arange(4.0))
        log.add_generation(search, asked, np.arange(4.0), 40)
        assert not partial.has(PENDING)


def test_a_generation_with_candidates_without_a_score_is_told_of_logged_and_replayed(tmp_path):
    told = []
    monitor = Silent()
    monitor.emit = told.append

    def begun():
        return Restarts([SearchShape(num_parameters=2, population=4, sigma=0.5)], trial=9)

    workspace, search = Workspace.open(tmp_path / "w", create=True), begun()
    with workspace.lock("control"):
        partial = workspace.begin("control", "f" * 64)
        log = SearchLog(partial, Silent())
        for generation, scores in enumerate(([3.0, np.nan, -1.0, np.inf], [1.0, 2, 3, 4]), 1):
            asked = search.ask()
            fitness = ranked(np.array(scores), generation=generation, progress=monitor)
            search.tell(fitness)
            log.add_generation(search, asked, fitness, 40)
        (warning,) = told
        assert warning.warning
        assert warning.text.startswith("2 of 4 candidates of generation 1 have no finite score")
        again, kept = begun(), SearchLog(workspace.begin("control", "f" * 64), Silent())
        kept.replay(again)
        assert kept.records[0]["fitness"] == [3.0, -1.0, -1.0, -1.0]
        assert np.array_equal(again.ask(), search.ask())


def test_a_generation_without_scores_is_never_logged(tmp_path):
    workspace = Workspace.open(tmp_path / "w", create=True)
    search = Restarts([SearchShape(num_parameters=2, population=4, sigma=0.5)], trial=9)
    with workspace.lock("control"):
        log = SearchLog(workspace.begin("control", "f" * 64), Silent())
        asked, nothing = search.ask(), np.full(4, np.nan)
        with pytest.raises(NumbersBad, match="4 of 4 candidates of generation 7"):
            ranked(nothing, generation=7, progress=Silent())
        with pytest.raises(NumbersBad):
            search.tell(nothing)
        assert (search.generation, log.records) == (0, [])
        assert np.array_equal(search.active.mean, np.zeros(2))
        assert asked.shape == (4, 2)
