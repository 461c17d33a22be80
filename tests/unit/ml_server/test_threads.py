"""One thread alone takes several cores."""

import torch

from lyra_nli.ml_server.threads import worker


def test_who_is_not_told_otherwise_takes_one_core() -> None:
    with worker("loads") as loader, worker("judges", 3) as judge, worker("reads") as reader:
        for _ in range(2):  # in whatever order they begin
            told = [each.submit(torch.get_num_threads).result() for each in (loader, judge, reader)]
            assert told == [1, 3, 1]
