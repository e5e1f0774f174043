"""All exercises, in the order of the notebooks."""

from workbook.exercises import (
    ablations,
    evaluation,
    experts,
    faces,
    flows,
    flux,
    gating,
    playground,
    quickstart,
    sampling,
    stream,
    tokens,
    words,
)

NOTEBOOKS = (
    quickstart,
    faces,
    tokens,
    words,
    flows,
    flux,
    stream,
    experts,
    gating,
    sampling,
    evaluation,
    ablations,
    playground,
)
EXERCISES = {exercise.name: exercise for notebook in NOTEBOOKS for exercise in notebook.EXERCISES}
