"""Samples to look at: Markdown, code, a conversation, another script; five responses each."""

from typing import Any

PYTHON = """Here is a short version:

```python
def mean(values: list[float]) -> float:
    if not values:
        raise ValueError("the mean of nothing is not defined")
    return sum(values) / len(values)
```

- It refuses an **empty list** instead of dividing by zero.
- For large lists `math.fsum` loses less to rounding."""

QUESTIONS: list[tuple[Any, list[str]]] = [
    (
        "Our ad for a sleep supplement was rejected with the note “unsupported health claim”. "
        "The text was: *“Falls asleep in 5 minutes, guaranteed. Doctors are amazed.”* "
        "What is wrong with it, and how could we say it instead?",
        [
            "Two things are likely to have led to the rejection:\n\n"
            "1. **A promised effect.** “In 5 minutes, guaranteed” is a claim about what the "
            "product does to the body. Without a study of this product it cannot be upheld.\n"
            "2. **An appeal to authority.** “Doctors are amazed” suggests that the profession "
            "endorses it, and names nobody.\n\n"
            "You could write: *“A calm end to your day: our evening blend with lemon balm.”* It "
            "describes the product and promises no cure. If you have a study, link it, and say "
            "what it measured.",
            "The ad makes a guarantee and mentions doctors. Remove both. For example: “An evening "
            "blend with lemon balm, for a calm end to the day.”",
            "Health claims are regulated. You should consult a lawyer before you publish any ad.",
            "I think the problem is the word *amazed*. Try “Doctors are impressed” instead, and "
            "change five minutes to ten minutes so that it is more realistic.",
            "Great question! Advertising is a very important part of any business, and there are "
            "many things to consider. First of all, let us think about what advertising is. "
            + "Advertising tells people about a product, and it should be appealing. "
            * 30,
        ],
    ),
    (
        "Write a Python function that returns the mean of a list.",
        [
            PYTHON,
            "```python\ndef mean(values):\n    return sum(values) / len(values)\n```",
            "Use `statistics.mean(values)`; it is in the standard library, and it raises "
            "`StatisticsError` for an empty list.",
            "def mean(values): total = 0; for v in values: total = total + v; return total",
            "The mean is the sum of all values divided by how many there are.",
        ],
    ),
    (
        [
            {"role": "system", "content": "You answer in two sentences at most."},
            {"role": "user", "content": "Why is the sky blue?"},
            {
                "role": "assistant",
                "content": "Air scatters short waves of light more than long ones.",
            },
            {"role": "user", "content": "Then why is it not violet?"},
        ],
        [
            "The sun sends less violet than blue, and some of it is absorbed high up. Our eyes, "
            "too, are less sensitive to violet.",
            "Because violet light is absorbed by the ozone layer.",
            "It is violet, but nobody notices.",
            "Our eyes see violet poorly.",
            "Good question. There are a number of reasons. One is the spectrum of the sun. Another "
            "is the eye. A third is the atmosphere. All of them matter.",
        ],
    ),
    (
        "How do I say “Could you please send me the invoice?” in Arabic?",
        [
            "هل يمكنك من فضلك إرسال الفاتورة إليّ؟",
            "**هل يمكنك إرسال الفاتورة؟** (*hal yumkinuka irsāl al-fātūra?*), which is polite "
            "enough for an e-mail.",
            "You can say: أرسل الفاتورة.",
            "Arabic is written from right to left.",
            "Could you please send me the invoice?",
        ],
    ),
    (
        "Compare cotton and wool for a summer shirt.",
        [
            "| | Cotton | Fine wool |\n|---|---|---|\n| Heat | airy | airy |\n"
            "| Sweat | gets wet | stays dry to the touch |\n| Smell | after a day | after days |\n"
            "| Care | any wash | 30 °C, gently |\n\nFor one hot day take cotton; for a week of "
            "travel take wool.",
            "Cotton is cooler and cheaper. Wool smells less.",
            "> Wool is for winter.\n\nTake cotton.",
            "Both are natural fibres.",
            "Wool, because it is warm.",
        ],
    ),
    (
        "Give me three names for a bakery that is open at night.",
        [
            "1. Moonrise Bakery\n2. The Late Loaf\n3. Crumbs after Dark",
            "Night Bakery, Bakery at Night, The Night Bakery",
            "- **The Late Loaf**\n- *Dough & Dusk*\n- Second Shift",
            "Moonrise Bakery is a nice name.",
            "What kind of bread do you sell?",
        ],
    ),
]


def rows(count: int) -> list[dict[str, Any]]:
    """So many samples as step2_reward/sample.py writes them; each with texts of its own."""
    made = []
    for i in range(count):
        prompt, responses = QUESTIONS[i % len(QUESTIONS)]
        turn = i // len(QUESTIONS)
        if turn and isinstance(prompt, str):
            prompt = f"{prompt} (question {i + 1})"
        elif turn:
            prompt = [*prompt[:-1], {**prompt[-1], "content": f"Why not violet? ({i + 1})"}]
        made.append(
            {
                "prompt": prompt,
                "responses": list(responses),
                "ended": [True] * len(responses),
                "facts": None,
                "model": "runs/demo/models/sft",
                "temperature": 1.0,
                "top_p": 1.0,
                "seed": 0,
            }
        )
    return made
