"""Metrics for `evaluate.load(folder)`; each folder can be copied elsewhere as it is.

    import evaluate
    metric = evaluate.load("common/evaluation/metrics/kendalls_w")
    metric.compute(predictions=[[1, 2, 3], [2, 1, 3]])

`<name>/equation.py` is the one home of the equation, which this project imports from there;
`<name>/<name>.py` dresses it for `evaluate`. Neither imports this project.
"""
