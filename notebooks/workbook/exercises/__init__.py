"""All exercises, in the order of the notebooks."""

from workbook.exercises import (
    evaluation,
    experts,
    faces,
    flows,
    flux,
    gating,
    lora,
    quickstart,
    sampling,
    stream,
    tokens,
    words,
)

NOTEBOOKS = (quickstart, faces, tokens, words, flows, flux, stream, experts, gating, lora, sampling, evaluation)
EXERCISES = {exercise.name: exercise for notebook in NOTEBOOKS for exercise in notebook.EXERCISES}
