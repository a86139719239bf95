"""HALO written plainly: padded, dense, with N x N matrices times a triangular mask. The oracle of the packed model."""

import numpy as np


def naive_tensor(records, words, *, length):
    """(B, length, V) multi-hot rows: start, label visit, visits; the last visit carries `end`; then padding."""
    layout = words.layout
    rows = np.zeros((len(records), length, layout.size))
    rows[:, 0, layout.start] = 1
    for i in range(len(records)):
        rows[i, 1, records.context[records.context_offsets[i] : records.context_offsets[i + 1]]] = 1
        first, stop = records.patient_offsets[i], records.patient_offsets[i + 1]
        for t, visit in enumerate(range(first, stop)):
            rows[i, 2 + t, records.codes[records.visit_offsets[visit] : records.visit_offsets[visit + 1]]] = 1
        rows[i, 1 + stop - first, layout.end] = 1
    return rows


def naive_mask(records, *, length):
    """(B, length - 1): which rows 1.. are real."""
    return np.arange(1, length)[None, :] <= 1 + records.visit_counts[:, None]


def naive_logits(weights, rows, *, config):
    """(B, length - 1, V) logits of rows 1.. given the rows before."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    embedded = rows[:, :-1] @ np.vstack([w["embedding"], np.zeros(config.embedding)])
    hidden = embedded + w["positions"][: rows.shape[1] - 1]
    for block in range(config.layers):
        hidden = _block(hidden, {k.removeprefix(f"blocks.{block}."): v for k, v in w.items()}, config.heads)
    history = _norm(hidden, w["norm.weight"], w["norm.bias"])
    return naive_head(np.concatenate([history, rows[:, 1:]], axis=2), w, config.embedding)


def naive_head(z, w, size):
    """Two N x N layers under a lower-triangular mask; row E - 1 + k of the second is the logit of token k."""
    n = z.shape[2]
    first, second, bias_1, bias_2 = np.zeros((n, n)), np.zeros((n, n)), np.zeros(n), np.zeros(n)
    first[:size, :size][np.tril_indices(size)] = w["head.low"]
    first[size : n - 1, :size] = w["head.high.weight"]
    columns = np.zeros((n - 1 - size, n - 1 - size))
    columns[np.triu_indices(n - 1 - size)] = w["head.tokens"]
    first[size : n - 1, size : n - 1] = columns.T
    bias_1[: n - 1] = np.concatenate([w["head.low_bias"], w["head.high.bias"]])
    rows, entries = np.tril_indices(n)
    second[rows, entries] = np.concatenate([np.zeros(size * (size - 1) // 2), spread(w["head.output"], size=size, n=n)])
    bias_2[size - 1 : n - 1] = w["head.output_bias"]
    hidden = np.maximum(z @ first.T + bias_1, 0)
    return (hidden @ second.T + bias_2)[:, :, size - 1 : n - 1]


def spread(output, *, size, n):
    """The packed second layer, with its unused last row: row E - 1 + k has E + k entries."""
    return np.concatenate([output, np.zeros(n * (n + 1) // 2 - size * (size - 1) // 2 - len(output))])


def _block(x, w, heads):
    _, steps, size = x.shape
    normed = _norm(x, w["attention_norm.weight"], w["attention_norm.bias"])
    query, key, value = np.split(normed @ w["attention_in.weight"].T + w["attention_in.bias"], 3, axis=2)
    mixed = np.zeros_like(x)
    width = size // heads
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(0, 2, 1) / np.sqrt(width)
        scores[:, ~np.tril(np.ones((steps, steps), dtype=bool))] = -np.inf
        share = np.exp(scores - scores.max(axis=2, keepdims=True))
        mixed[..., part] = share / share.sum(axis=2, keepdims=True) @ value[..., part]
    x = x + mixed @ w["attention_out.weight"].T + w["attention_out.bias"]
    inner = _norm(x, w["mlp_norm.weight"], w["mlp_norm.bias"]) @ w["mlp_in.weight"].T + w["mlp_in.bias"]
    return x + _gelu(inner) @ w["mlp_out.weight"].T + w["mlp_out.bias"]


def _norm(x, weight, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def _gelu(x):
    from scipy.special import erf

    return x * (1 + erf(x / np.sqrt(2))) / 2


def naive_cells(logits, target):
    """Binary cross-entropy of each cell."""
    return np.logaddexp(0, logits) - target * logits
