"""The shape of a model in plain PyTorch modules with random weights: the baseline of `npm run bench -- engine`.

Arguments: config.json, threads, cache length. Reads lines `prefill TOKENS` or `decode ROWS CONTEXT STEPS`, answers each with the
milliseconds per call. Below a billion parameters it computes in float32, above in bfloat16, and says which.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

config = json.load(open(sys.argv[1]))
torch.set_num_threads(int(sys.argv[2]))
LENGTH = int(sys.argv[3])
MAX_ROWS = 16
gpt2 = config["model_type"] == "gpt2"
gemma = config["model_type"] == "gemma2"
WIDTH = config["n_embd"] if gpt2 else config["hidden_size"]
LAYERS = config["n_layer"] if gpt2 else config["num_hidden_layers"]
HEADS = config["n_head"] if gpt2 else config["num_attention_heads"]
KV = HEADS if gpt2 else config["num_key_value_heads"]
HEAD = config.get("head_dim") or WIDTH // HEADS
INNER = 4 * WIDTH if gpt2 else config["intermediate_size"]
VOCAB = config["vocab_size"]
BIG = LAYERS * WIDTH * INNER > 3e8
DTYPE = torch.bfloat16 if BIG else torch.float32
torch.set_default_dtype(DTYPE)


def norm():
    return nn.LayerNorm(WIDTH) if gpt2 else nn.RMSNorm(WIDTH)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = norm(), norm()
        if gemma:
            self.first_after, self.second_after = norm(), norm()
        self.qkv = nn.Linear(WIDTH, (HEADS + 2 * KV) * HEAD, bias=gpt2)
        self.out = nn.Linear(HEADS * HEAD, WIDTH, bias=gpt2)
        self.up = nn.Linear(WIDTH, INNER if gpt2 else 2 * INNER, bias=gpt2)
        self.down = nn.Linear(INNER, WIDTH, bias=gpt2)

    def forward(self, x, cache, start, rotary):
        rows, tokens, _ = x.shape
        q, k, v = self.qkv(self.first(x)).split([HEADS * HEAD, KV * HEAD, KV * HEAD], -1)
        q = q.view(rows, tokens, HEADS, HEAD).transpose(1, 2)
        k = k.view(rows, tokens, KV, HEAD).transpose(1, 2)
        v = v.view(rows, tokens, KV, HEAD).transpose(1, 2)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        cache[0, :rows, :, start : start + tokens] = k
        cache[1, :rows, :, start : start + tokens] = v
        keys, values = cache[0, :rows, :, : start + tokens], cache[1, :rows, :, : start + tokens]
        if gemma:
            attended = capped(q, keys, values)
        else:
            attended = F.scaled_dot_product_attention(q, keys, values, is_causal=tokens > 1, enable_gqa=KV != HEADS)
        attended = self.out(attended.transpose(1, 2).reshape(rows, tokens, HEADS * HEAD))
        x = x + (self.first_after(attended) if gemma else attended)
        hidden = self.up(self.second(x))
        if gpt2:
            hidden = F.gelu(hidden, approximate="tanh")
        else:
            gate, up = hidden.chunk(2, -1)
            hidden = (F.gelu(gate, approximate="tanh") if gemma else F.silu(gate)) * up
        added = self.down(hidden)
        return x + (self.second_after(added) if gemma else added)


def capped(q, k, v):
    """Attention with Gemma's soft cap, which scaled_dot_product_attention does not have."""
    k, v = (t.repeat_interleave(HEADS // KV, 1) for t in (k, v))
    scores = torch.tanh(q @ k.transpose(-1, -2) * (HEAD**-0.5 / 50)) * 50
    tokens, total = scores.shape[-2:]
    if tokens > 1:
        scores = scores.masked_fill(torch.ones(tokens, total, dtype=torch.bool).triu(total - tokens + 1), float("-inf"))
    return scores.softmax(-1) @ v


def rotate(x, rotary):
    cos, sin = rotary
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCAB, WIDTH)
        nn.init.normal_(self.table.weight, std=0.02)
        if gpt2:
            self.positions = nn.Embedding(config["n_positions"], WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.last = norm()
        self.cache = torch.zeros(LAYERS, 2, MAX_ROWS, KV, LENGTH, HEAD)
        angles = torch.outer(torch.arange(LENGTH).float(), 10000.0 ** (-torch.arange(0, HEAD, 2).float() / HEAD))
        self.angles = angles.cos().to(DTYPE), angles.sin().to(DTYPE)

    def forward(self, ids, start):
        tokens = ids.shape[1]
        here = slice(start, start + tokens)
        x = self.table(ids)
        if gpt2:
            x = x + self.positions.weight[here]
        rotary = None if gpt2 else (self.angles[0][here], self.angles[1][here])
        for layer, block in enumerate(self.blocks):
            x = block(x, self.cache[layer], start, rotary)
        return F.linear(self.last(x[:, -1]), self.table.weight)


with torch.inference_mode():
    model = Decoder().eval()
    print(json.dumps({"version": torch.__version__, "dtype": str(DTYPE).removeprefix("torch.")}), flush=True)
    for line in sys.stdin:
        kind, *numbers = line.split()
        first, *rest = (int(number) for number in numbers)
        if kind == "prefill":
            ids, calls = torch.arange(first).remainder(VOCAB)[None], [0]
        else:
            context, steps = rest
            ids, calls = torch.arange(first).remainder(VOCAB)[:, None], range(context, context + steps)
        began = time.perf_counter()
        for start in calls:
            model(ids, start).argmax(-1)
        print((time.perf_counter() - began) * 1000 / len(calls), flush=True)
