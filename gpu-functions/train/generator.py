"""Synthetic stories with controlled attributes: a topic, a mood and a manner, drawn independently.

They are training text and ground truth at once: directions.py and evaluate.py know what each story was made to be. Entities are
kept through a story (one hero, one friend, one animal, two things), and narration and speech agree with the mood.
"""

import random
import re
from dataclasses import dataclass

import fragments as words

MOODS = ("happy", "sad", "neutral")
MANNERS = ("polite", "rude", "neutral")


@dataclass(frozen=True)
class Story:
    text: str
    topic: str
    mood: str
    manner: str


def fix_articles(text: str) -> str:
    """a/an before vowels, and a capital after a sentence's end."""
    text = re.sub(r"\b([Aa]) (?=[aeioAEIO]|u(?!ni|se))", r"\1n ", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)


class Generator:
    """Draws stories from one seeded source of randomness."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def _scene(self, topic: str, mood: str) -> dict[str, str]:
        pick = self.random.choice
        places, things, acts, _ = words.TOPICS[topic]
        thing, other = self.random.sample(things, 2)
        girl = self.random.random() < 0.5
        friend_girl = self.random.random() < 0.5
        name = pick(words.GIRLS if girl else words.BOYS)
        friend = pick([n for n in (words.GIRLS if friend_girl else words.BOYS) if n != name])
        moods = {"happy": words.HAPPY, "sad": words.SAD, "neutral": words.CALM}[mood]
        return {
            "N": name, "S": "She" if girl else "He", "s": "she" if girl else "he", "o": "her" if girl else "him",
            "p": "her" if girl else "his", "k": "girl" if girl else "boy",
            "F": friend, "Fs": "She" if friend_girl else "He", "fs": "she" if friend_girl else "he",
            "a": pick(words.ANIMALS), "t": thing, "t2": other, "adj": pick(words.ADJECTIVES), "place": pick(places),
            "act": pick(acts), "kin": pick(words.KIN), "m": pick(moods), "food": pick(words.FOODS), "time": pick(words.TIMES),
        }  # fmt: skip

    def _several(self, pool: list[str], low: int, high: int) -> list[str]:
        return self.random.sample(pool, min(len(pool), self.random.randint(low, high)))

    def _reason(self, mood: str) -> str:
        return self.random.choice(words.WHY[mood])

    def story(self, topic: str | None = None, mood: str | None = None, manner: str | None = None) -> Story:
        """One text. Attributes that are not given are drawn: moods 2:2:1, manners 1:1:1."""
        r = self.random
        topic = topic or r.choice(list(words.TOPICS))
        mood = mood or r.choice(["happy", "happy", "sad", "sad", "neutral"])
        manner = manner or r.choice(MANNERS)
        scene = self._scene(topic, mood)
        about = words.TOPICS[topic][3]
        form = r.random()
        if form < 0.12:
            parts = []
            for line in self._several(words.DIARY[mood], 2, 4):
                why = self._reason(mood)
                parts.append(line.replace("{why}", why).replace("{Why}", why[0].upper() + why[1:]))
                if r.random() < 0.5:
                    parts.append(r.choice(about))
                scene = {**self._scene(topic, mood), "N": scene["N"]}
            paragraphs = [" ".join(parts)]
        elif form < 0.18:
            line = r.choice(words.LETTERS).replace("{topic}", r.choice(about)).replace("{line}", r.choice(words.SPEECH[manner]) if r.random() < 0.3 else "")
            why = self._reason(mood)
            paragraphs = [line.replace("{why2}", why[0].upper() + why[1:]).replace("  ", " ")]
        elif form < 0.23:
            paragraphs = [line.replace("{why}", self._reason(mood)) for line in self._several(words.QUESTIONS, 1, 3)]
        else:
            first = [r.choice(words.OPENINGS), *self._several(about, 1, 3), r.choice(words.PLOTS["neutral"])]
            second = [r.choice(words.PLOTS[mood]), *self._several(words.MOOD_LINES[mood], 1, 3), *self._several(about, 0, 1)]
            talk = self._several(words.SPEECH[manner], 1, 2)
            second[1:1] = talk if r.random() < 0.5 else []
            if talk[0] not in second:
                second += talk
            last = [*self._several(words.MOOD_LINES[mood], 0, 2), r.choice(words.ENDINGS[mood])]
            paragraphs = [" ".join(first), " ".join(second), " ".join(last)] if r.random() < 0.6 else [" ".join(first + second + last)]
        text = "\n".join(fix_articles(" ".join(part.format_map(scene).split())) for part in paragraphs)
        return Story(text, topic, mood, manner)


def stories(count: int, seed: int) -> list[Story]:
    """`count` stories; the same seed gives the same list."""
    generator = Generator(seed)
    return [generator.story() for _ in range(count)]


if __name__ == "__main__":
    for story in stories(6, 0):
        print(f"[{story.topic}, {story.mood}, {story.manner}]\n{story.text}\n")
