"""The texts that the presets of the bundled model are derived from: short scenes that differ in one attribute, as JSON lines.

    python presets.py

Writes presets/<name>.jsonl: objects {text, label}, or {prompt, positive, negative} where one question has two answers. presets.ts makes
directions of them. Seeded: the same files every time, with a seed that no training text has.
"""

import json
from pathlib import Path

import fragments as words
from generator import Generator, fix_articles

HERE = Path(__file__).parent / "presets"
SEED = 7000
PER_SIDE = 120

# A stance is an answer to a proposal.
PROPOSALS = [
    "\"Can we {act}?\" asked {N}.", "\"I want to {act} today,\" said {N}.", "\"Let's {act},\" said {N}.", "{N} asked {F}, \"Shall we {act}?\"",
    "{N} wanted to {act} and asked {p} {kin}.", "\"May I take the {t}?\" asked {N}.", "\"Should we go out to {act}?\" {N} asked.",
]  # fmt: skip
SUPPORT = [
    "\"Yes, that is a good idea,\" said {F}. \"Let's do it.\"", "\"Yes, you can,\" said {F}. \"I will help you.\"", "\"Of course,\" said {F}. \"I want to do it too.\"",
    "{F} nodded and said, \"Yes, let's go!\"", "\"I agree,\" said {F}. \"You are right.\"", "\"Great idea!\" said {F}. \"Let's go now.\"",
]  # fmt: skip
OPPOSE = [
    "\"No, that is a bad idea,\" said {F}. \"Do not do it.\"", "\"No, you can not,\" said {F}. \"I will not help you.\"", "\"Never,\" said {F}. \"I do not want to do it.\"",
    "{F} shook {p} head and said, \"No, stop!\"", "\"I do not agree,\" said {F}. \"You are wrong.\"", "\"Bad idea!\" said {F}. \"Stay here.\"",
]  # fmt: skip


class Scenes:
    """Lines of one scene each, with the same hero, friend and things."""

    def __init__(self, seed: int) -> None:
        self.generator = Generator(seed)
        self.random = self.generator.random

    def scene(self, mood: str) -> dict[str, str]:
        return self.generator._scene(self.random.choice(list(words.TOPICS)), mood)

    def fill(self, lines: list[str], scene: dict[str, str]) -> str:
        return fix_articles(" ".join(" ".join(lines).format_map(scene).split()))

    def mood(self, mood: str) -> str:
        pick = self.random.choice
        return self.fill([pick(words.PLOTS[mood]), pick(words.MOOD_LINES[mood]), pick(words.ENDINGS[mood])], self.scene(mood))

    def manner(self, manner: str) -> str:
        pick = self.random.choice
        return self.fill([pick(words.PLOTS["neutral"]), *self.random.sample(words.SPEECH[manner], 2)], self.scene("neutral"))

    def stance(self) -> dict[str, str]:
        scene, i = self.scene("neutral"), self.random.randrange(len(SUPPORT))
        prompt = self.fill([self.random.choice(words.PLOTS["neutral"]), self.random.choice(PROPOSALS)], scene)
        return {"prompt": prompt, "positive": " " + self.fill([SUPPORT[i]], scene), "negative": " " + self.fill([OPPOSE[i]], scene)}


def sides(draw, positive: str, negative: str) -> list[dict[str, str]]:
    return [{"text": draw(value), "label": label} for _ in range(PER_SIDE) for value, label in ((positive, "positive"), (negative, "negative"))]


def main() -> None:
    scenes = Scenes(SEED)
    files = {
        "sentiment": sides(scenes.mood, "happy", "sad"),
        "politeness": sides(scenes.manner, "polite", "neutral"),
        "toxicity": sides(scenes.manner, "rude", "neutral"),
        "stance": [scenes.stance() for _ in range(PER_SIDE)],
    }
    HERE.mkdir(exist_ok=True)
    for name, rows in files.items():
        (HERE / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
