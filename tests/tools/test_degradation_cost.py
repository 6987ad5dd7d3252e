"""The tool that times realistic degradation runs."""

from __future__ import annotations

import torch

from tools.degradation_cost import main


def test_it_prints_a_line_for_each_view_and_preset(capsys):
    threads = torch.get_num_threads()
    main(images=3, rounds=1, threads=1)
    torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0].startswith(" 8-32 px  fast bicubic ")
    assert lines[0].endswith(" 1.00 x")
