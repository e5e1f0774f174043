"""All exercises, in the order of the notebooks."""

from workbook.exercises import (
    ablations,
    evaluation,
    experts,
    faces,
    flows,
    flux,
    gating,
    lora,
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
    lora,
    sampling,
    evaluation,
    ablations,
    playground,
)
EXERCISES = {exercise.name: exercise for notebook in NOTEBOOKS for exercise in notebook.EXERCISES}
