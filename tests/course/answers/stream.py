"""Answers to `workbook.exercises.stream`: wrong ones with words of their hints, right ones by another way."""

import torch
import torch.nn.functional as F

from workbook.exercises.stream import attend_kept, influences, stream_linear, who_sees_whom


def lora_on(where, added=lambda x, a, b: x @ a.T @ b.T):
    """stream_linear with LoRA on other tokens, or another LoRA; where(L, num_condition) -> a slice of the tokens."""

    def layer(weight, bias, a, b, x, num_condition):
        out = F.linear(x, weight, bias)
        on = where(x.shape[1], num_condition)
        out[:, on] += added(x[:, on], a, b)
        return out

    return layer


def last(length, count):
    return slice(length - count, None)


def replaced(weight, bias, a, b, x, num_condition):
    out = F.linear(x, weight, bias)
    first = x.shape[1] - num_condition
    return torch.cat([out[:, :first], x[:, first:] @ a.T @ b.T], dim=1)


def in_place(weight, bias, a, b, x, num_condition):
    first = x.shape[1] - num_condition
    rest = F.linear(x[:, :first], weight, bias)
    weight += b @ a
    return torch.cat([rest, F.linear(x[:, first:], weight, bias)], dim=1)


def two_matrices(weight, bias, a, b, x, num_condition):
    rest, condition = x.split([x.shape[1] - num_condition, num_condition], dim=1)
    return torch.cat([F.linear(rest, weight, bias), F.linear(condition, weight + b @ a, bias)], dim=1)


def changed(variant, **parts):
    """who_sees_whom with another mask for one variant: parts rest_rest, rest_condition and so on."""

    def masks(name, num_rest, num_condition):
        found = who_sees_whom(name, num_rest, num_condition)
        if name == variant:
            for part, value in parts.items():
                row, column = part.split("_")
                place = {"rest": slice(num_rest), "condition": slice(num_rest, None)}
                found[place[row], place[column]] = value
        return found

    return masks


def by_cases(variant, num_rest, num_condition):
    def sees(query, key):
        of_condition, at_condition = query >= num_rest, key >= num_rest
        if variant == "union" or of_condition == at_condition:
            return True
        return variant == "independent" and at_condition

    total = range(num_rest + num_condition)
    return torch.tensor([[sees(query, key) for key in total] for query in total])


def predicting(variant, velocity, stream):
    return lambda: influences() | {variant: (velocity, stream)}


def forgetful(query, rest, make_condition, memory):
    return attend_kept(query, rest, make_condition, {})


_KNOWN: dict = {}


def global_memory(query, rest, make_condition, memory):
    return attend_kept(query, rest, make_condition, _KNOWN)


def keeping_all(query, rest, make_condition, memory):
    if "all" not in memory:
        memory["all"] = [torch.cat(pair, dim=1) for pair in zip(rest, make_condition(), strict=True)]
    return attended(query, *memory["all"])


def growing(query, rest, make_condition, memory):
    if "all" not in memory:
        memory["all"] = make_condition()
    memory["all"] = [torch.cat(pair, dim=1) for pair in zip(rest, memory["all"], strict=True)]
    return attended(query, *memory["all"])


def only_keys(query, rest, make_condition, memory):
    key = memory.setdefault("key", None)
    if key is None:
        key = memory["key"] = make_condition()[0]
    return attended(query, torch.cat([rest[0], key], 1), torch.cat([rest[1], make_condition()[1]], 1))


def attended(query, key, value):
    out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
    return out.transpose(1, 2).flatten(2)


def condition_of(make_condition, memory):
    if not memory:
        memory["key"], memory["value"] = make_condition()
    return memory["key"], memory["value"]


def alone(query, rest, make_condition, memory):
    return attended(query, *condition_of(make_condition, memory))


def without(query, rest, make_condition, memory):
    condition_of(make_condition, memory)
    return attended(query, *rest)


def exchanged(query, rest, make_condition, memory):
    key, value = condition_of(make_condition, memory)
    return attended(query, torch.cat([rest[1], value], 1), torch.cat([rest[0], key], 1))


def heads_apart(query, *others):
    return attend_kept(query, *others).unflatten(-1, query.shape[2:])


def condition_first(query, rest, make_condition, memory):
    """The condition's keys and values before the others: the order of keys does not matter."""
    key, value = condition_of(make_condition, memory)
    return attended(query, torch.cat([key, rest[0]], 1), torch.cat([value, rest[1]], 1))


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "stream_linear": [
        ("LoRA acts on all tokens", lora_on(lambda length, count: slice(None))),
        ("on text and image and not", lora_on(lambda length, count: slice(length - count))),
        ("the first tokens of x", lora_on(lambda length, count: slice(count))),
        ("LoRA acts on nothing", lora_on(lambda length, count: slice(0))),
        ("B A x alone", replaced),
        ("bias is missing", lambda weight, bias, *rest: stream_linear(weight, torch.zeros(5), *rest)),
        ("bias is added twice",
         lambda w, bias, *rest: lora_on(last, lambda x, a, b: x @ a.T @ b.T + bias)(w, bias, *rest)),
        ("subtracted", lora_on(last, lambda x, a, b: -(x @ a.T @ b.T))),
        ("divided by the rank", lora_on(last, lambda x, a, b: x @ a.T @ b.T / len(a))),
        ("nonlinearity", lora_on(last, lambda x, a, b: (x @ a.T).relu() @ b.T)),
        ("condition's rows alone", lambda w, bias, a, b, x, n: stream_linear(w, bias, a, b, x, n)[:, -n:]),
        ("has changed", in_place),
        ("Count from the front", lora_on(lambda length, count: slice(-count, None))),
        ("x @ a.T is (B, L, r)", lora_on(last, lambda x, a, b: x @ a @ b)),
    ],
    "fusing_fault": [
        ("near 1e-6", lambda: 1),
        ("compare the last rows", lambda: 2),
        ("never asked for one", "3"),
        ("right order", lambda: 5),
        ("same vector before and after", 6),
        ("no explanation 7", lambda: 7),
        ("number of one explanation", lambda: "rounding"),
    ],
    "who_sees_whom": [
        ("exchanged: True means", lambda *inputs: ~who_sees_whom(*inputs)),
        ("Nobody sees the condition", changed("union", rest_condition=False)),
        ("Each token sees itself alone", lambda name, n, m: torch.eye(n + m, dtype=torch.bool)),
        ("A triangle", lambda *inputs: who_sees_whom("union", *inputs[1:]).tril()),
        ("Rows and columns", lambda *inputs: who_sees_whom(*inputs).T),
        ("Text and image do not see the condition here", changed("independent", rest_condition=False)),
        ("sees the rest and not itself", changed("independent", condition_rest=True, condition_condition=False)),
        ("independent: The condition sees nobody", changed("independent", condition_condition=False)),
        ("independent: The condition still sees text and image", changed("independent", condition_rest=True)),
        ("separate: The rest still sees the condition", changed("separate", rest_condition=True)),
        ("separate: The condition still sees the rest", changed("separate", condition_rest=True)),
        ("Everybody still sees everybody", changed("separate", condition_rest=True, rest_condition=True)),
        ("separate: The condition sees nobody", changed("separate", condition_condition=False)),
        ("expected True and False", lambda *inputs: who_sees_whom(*inputs).float()),
    ],
    "influences": [
        ("union: image queries look", predicting("union", False, True)),
        ("union: condition queries look", predicting("union", True, False)),
        ("only the condition's own view is closed", predicting("independent", False, False)),
        ("whose time is 0", predicting("independent", True, True)),
        ("the mask reaches nobody", predicting("separate", True, False)),
        ("does not look at the image either", predicting("separate", False, True)),
        ("with the keys", lambda: ["separate"]),
        ("two of True and False", lambda: influences() | {"union": True}),
    ],
    "attend_kept": [
        ("called again in the second step", forgetful),
        ("nothing may be kept anywhere else", global_memory),
        ("change with every step", keeping_all),
        ("pile up", growing),
        ("called twice in the first step", only_keys),
        ("look at the condition alone", alone),
        ("condition is missing", without),
        ("values are used as keys", exchanged),
        ("heads are still apart", heads_apart),
        ("was never called; where", lambda query, rest, make, memory: attended(query, *rest)),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "stream_linear": two_matrices,
    "fusing_fault": "explanation 4",
    "who_sees_whom": by_cases,
    "influences": lambda: {name: [int(x) for x in pair] for name, pair in influences().items()},
    "attend_kept": condition_first,
}
