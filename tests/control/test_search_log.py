"""What a killed search still knows of the generation in which it died."""

import numpy as np

from stages.artifacts.workspace import Workspace
from stages.control.restarts import Restarts
from stages.control.search import SearchShape
from stages.control.search_log import PENDING, SearchLog


def test_both_heats_of_the_unfinished_generation_are_kept_and_a_cut_line_is_not(tmp_path):
    workspace = Workspace.open(tmp_path / "w", create=True)
    with workspace.lock("control"):
        partial = workspace.begin("control", "f" * 64)
        log = SearchLog(partial)
        assert log.pending("heat") == {}
        log.add_pending("heat", 0, [(1.5, 40), (2.5, 44)])
        log.add_pending("heat", 1, [(3.5, 48)])
        log.add_pending("final", 0, [(9.0, 50)])
        with (partial.path / PENDING).open("ab") as file:
            file.write(b'{"of":"final","ta')
        again = SearchLog(workspace.begin("control", "f" * 64))
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
        log = SearchLog(partial)
        log.add_pending("heat", 0, [(1.5, 40)])
        asked = search.ask()
        search.tell(np.arange(4.0))
        log.add_generation(search, asked, np.arange(4.0), 40)
        assert not partial.has(PENDING)
