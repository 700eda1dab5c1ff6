"""The paper, as TRL puts it into model cards."""

PAPER = {
    "title": "Rethinking Importance Sampling in LLM Policy Optimization: "
    "A Cumulative Token Perspective",
    "id": "2605.07331",
    "citation": """\
@misc{zhang2026ctpo,
    title         = {{Rethinking Importance Sampling in LLM Policy Optimization: A Cumulative Token Perspective}},
    author        = {Yuheng Zhang and Chenlu Ye and Shuowei Jin and Changlong Yu and Wei Xiong and Saurabh Sahu and Nan Jiang},
    year          = 2026,
    eprint        = {2605.07331},
    archivePrefix = {arXiv},
}""",  # noqa: E501 - as it is printed
}
