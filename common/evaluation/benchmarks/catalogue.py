"""What is asked: the paper's benchmarks with their shots, limits, parts and published scores.

Shots are those of the paper's Table 1; the limits of new tokens are GPT-Fathom's, whose pipeline
the paper used (§4.2, https://arxiv.org/abs/2309.16583).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["letter", "letters", "steps", "number", "math", "phrase", "word"]
"""How an answer is read: a choice's letter, what follows "the answer is", the last number, …"""

TABLE1_COLUMNS = (
    *("mmlu", "agieval", "bbh", "agieval_zh", "arc_e", "arc_c"),
    *("hellaswag", "winogrande", "race_m", "race_h", "gsm8k", "math"),
)
"""The columns of the paper's Table 1, in its order."""

TABLE1: dict[str, tuple[float, ...]] = {
    "LLaMA 7B": (24.66, 20.05, 33.48, 23.68, 30.01, 26.71, 24.58, 50.36, 26.74, 29.19, 13.80, 0.36),
    "Llama2 7B": (40.91, 25.97, 38.21, 26.21, 62.37, 48.46, 25.39, 50.36, 45.75, 39.54, 17.51)
    + (0.08,),
    "Vicuna 7B": (38.49, 22.71, 37.26, 27.00, 69.74, 46.33, 17.37, 49.80, 50.21, 46.83, 21.68)
    + (0.96,),
    "ICE-Instruct 7B": (26.30, 15.95, 39.00, 31.14, 67.63, 45.31, 3.10, 36.07, 53.55, 52.09, 35.48)
    + (0.82,),
    "LLaMA 13B": (38.42, 26.78, 38.28, 25.51, 67.63, 49.23, 28.90, 47.51, 52.23, 48.51, 18.42)
    + (0.42,),
    "Llama2 13B": (49.57, 34.85, 45.89, 32.93, 76.52, 55.63, 37.17, 52.17, 57.73, 55.09, 28.66)
    + (0.44,),
    "Vicuna 13B": (35.84, 28.68, 39.27, 30.33, 60.23, 40.96, 0.03, 5.84, 59.19, 60.69, 24.56)
    + (0.66,),
    "ICE-Instruct 13B": (50.08, 24.51, 48.09, 34.15, 85.19, 66.89, 19.30, 47.99, 72.14, 56.52)
    + (47.08, 1.02),
    "ICE-GRT 13B": (55.33, 34.92, 49.78, 34.23, 87.58, 70.99, 39.37, 53.04, 75.91, 71.64, 51.48)
    + (0.92,),
    "LLaMA 30B": (50.38, 34.87, 49.70, 30.68, 82.41, 60.67, 31.31, 51.30, 65.18, 64.18, 35.10)
    + (0.58,),
    "Llama2 70B": (64.72, 43.99, 65.22, 39.52, 93.43, 79.61, 68.45, 69.69, 87.60, 85.13, 56.56)
    + (3.72,),
}
"""The paper's Table 1: model -> its scores in percent, in the order of `TABLE1_COLUMNS`."""

MMLU = (
    *("abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge"),
    *("college_biology", "college_chemistry", "college_computer_science", "college_mathematics"),
    *("college_medicine", "college_physics", "computer_security", "conceptual_physics"),
    *("econometrics", "electrical_engineering", "elementary_mathematics", "formal_logic"),
    *("global_facts", "high_school_biology", "high_school_chemistry"),
    *("high_school_computer_science", "high_school_european_history", "high_school_geography"),
    *("high_school_government_and_politics", "high_school_macroeconomics"),
    *("high_school_mathematics", "high_school_microeconomics", "high_school_physics"),
    *("high_school_psychology", "high_school_statistics", "high_school_us_history"),
    *("high_school_world_history", "human_aging", "human_sexuality", "international_law"),
    *("jurisprudence", "logical_fallacies", "machine_learning", "management", "marketing"),
    *("medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition"),
    *("philosophy", "prehistory", "professional_accounting", "professional_law"),
    *("professional_medicine", "professional_psychology", "public_relations"),
    *("security_studies", "sociology", "us_foreign_policy", "virology", "world_religions"),
)
AGIEVAL_EN = (
    *("aqua-rat", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc", "math", "sat-en"),
    *("sat-en-without-passage", "sat-math"),
)
AGIEVAL_ZH = (
    *("gaokao-biology", "gaokao-chemistry", "gaokao-chinese", "gaokao-english"),
    *("gaokao-geography", "gaokao-history", "gaokao-mathcloze", "gaokao-mathqa"),
    *("gaokao-physics", "jec-qa-ca", "jec-qa-kd", "logiqa-zh"),
)
AGIEVAL_CHINESE = tuple(name for name in AGIEVAL_ZH if name != "gaokao-english")
"""Those that are asked in Chinese; AGIEval's own code and the hub ask its exam of English in it."""
AGIEVAL_CLOZE = ("math", "gaokao-mathcloze")
"""Those without choices: any expression of the same value is right."""
BBH = (
    *("boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa"),
    *("dyck_languages", "formal_fallacies", "geometric_shapes", "hyperbaton"),
    *("logical_deduction_five_objects", "logical_deduction_seven_objects"),
    *("logical_deduction_three_objects", "movie_recommendation", "multistep_arithmetic_two"),
    *("navigate", "object_counting", "penguins_in_a_table", "reasoning_about_colored_objects"),
    *("ruin_names", "salient_translation_error_detection", "snarks", "sports_understanding"),
    *("temporal_sequences", "tracking_shuffled_objects_five_objects"),
    *("tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects"),
    *("web_of_lies", "word_sorting"),
)
MATH = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra"),
    *("number_theory", "prealgebra", "precalculus"),
)


@dataclass(frozen=True)
class Benchmark:
    """One column of a results table.

    Attributes:
        title: as the paper writes it.
        kind: how an answer is read in mode "fathom".
        group: "table1", or "ablation" for those of §5.2 only.
        shots: worked examples before a question, of the paper; AGIEval's own number, 3 to 5,
            where it is 0.
        max_new_tokens: limit of an answer in mode "fathom", in tokens.
        chain_of_thought: whether the examples reason before they answer.
        folders: names of the folder below the data folder in which its files are looked for;
            case, "-" and "_" don't matter.
        hub: data set on the Hugging Face hub.
        hub_config: configuration of it; `{subtask}` stands for the part's name.
        stock: name of lm-evaluation-harness's task; "" where it has none that fits.
        asked: parts to ask, the first that is there.
        shown: parts to take worked examples from, the first that is there and is not asked.
        subtasks: its parts that are scored apart; empty where it has none.
        paper: score in the paper's Table 1, in percent, by model.
        paper_gains: gain of ICE-GRT 13B over ICE-Instruct 13B in points, by the data of its
            rankings (§5.2.1; Figure 2b has no more figures).
    """

    title: str
    kind: Kind
    shots: int
    max_new_tokens: int
    chain_of_thought: bool
    folders: tuple[str, ...]
    hub: str
    hub_config: str = ""
    stock: str = ""
    group: Literal["table1", "ablation"] = "table1"
    asked: tuple[str, ...] = ("test", "", "validation", "dev", "train")
    shown: tuple[str, ...] = ("fewshot", "train", "dev", "validation")
    subtasks: tuple[str, ...] = ()
    paper: Mapping[str, float] = field(default_factory=dict)
    paper_gains: Mapping[str, float] = field(default_factory=dict)


_LABELED_LAST = ("validation", "dev", "", "test", "train")
"""Where the test part has no answers, as in HellaSwag and WinoGrande, validation is asked."""


def _paper(name: str) -> dict[str, float]:
    column = TABLE1_COLUMNS.index(name)
    return {model: scores[column] for model, scores in TABLE1.items()}


_RACE = ("letter", 1, 50, False)

CATALOGUE: dict[str, Benchmark] = {
    "mmlu": Benchmark(
        *("MMLU", "letter", 5, 10, False, ("mmlu", "hendrycks_test")),
        hub="cais/mmlu",
        hub_config="{subtask}",
        stock="mmlu_{subtask}",
        shown=("dev", "fewshot", "validation", "train"),
        subtasks=MMLU,
        paper=_paper("mmlu"),
    ),
    "agieval": Benchmark(
        *("AGIEval", "letters", 0, 50, False, ("agieval", "agieval_en")),
        hub="hails/agieval-{subtask}",
        subtasks=AGIEVAL_EN,
        paper=_paper("agieval"),
    ),
    "bbh": Benchmark(
        *("BBH", "steps", 3, 400, True, ("bbh", "big_bench_hard")),
        hub="SaylorTwift/bbh",
        hub_config="{subtask}",
        stock="bbh_cot_fewshot_{subtask}",
        subtasks=BBH,
        paper=_paper("bbh"),
    ),
    "agieval_zh": Benchmark(
        *("AGIEval-ZH", "letters", 0, 50, False, ("agieval_zh", "agieval")),
        hub="hails/agieval-{subtask}",
        subtasks=AGIEVAL_ZH,
        paper=_paper("agieval_zh"),
    ),
    "arc_e": Benchmark(
        *("ARC-E", "letter", 1, 10, False, ("arc_e", "arc_easy", "arc", "ai2_arc")),
        hub="allenai/ai2_arc",
        hub_config="ARC-Easy",
        stock="arc_easy",
        paper=_paper("arc_e"),
    ),
    "arc_c": Benchmark(
        *("ARC-C", "letter", 1, 10, False),
        ("arc_c", "arc_challenge", "arc", "ai2_arc"),
        hub="allenai/ai2_arc",
        hub_config="ARC-Challenge",
        stock="arc_challenge",
        paper=_paper("arc_c"),
    ),
    "hellaswag": Benchmark(
        *("HellaSwag", "letter", 1, 10, False, ("hellaswag",)),
        hub="Rowan/hellaswag",
        stock="hellaswag",
        asked=_LABELED_LAST,
        paper=_paper("hellaswag"),
    ),
    "winogrande": Benchmark(
        *("WinoGrande", "letter", 1, 10, False, ("winogrande", "winogrande_1.1")),
        hub="allenai/winogrande",
        hub_config="winogrande_xl",
        stock="winogrande",
        asked=_LABELED_LAST,
        paper=_paper("winogrande"),
    ),
    "race_m": Benchmark(
        *("RACE-M", *_RACE, ("race_m", "race_middle", "race")),
        hub="ehovy/race",
        hub_config="middle",
        paper=_paper("race_m"),
    ),
    "race_h": Benchmark(
        *("RACE-H", *_RACE, ("race_h", "race_high", "race")),
        hub="ehovy/race",
        hub_config="high",
        stock="race",
        paper=_paper("race_h"),
    ),
    "gsm8k": Benchmark(
        *("GSM8K", "number", 8, 1024, True, ("gsm8k", "grade_school_math")),
        hub="openai/gsm8k",
        hub_config="main",
        stock="gsm8k_cot",
        paper=_paper("gsm8k"),
    ),
    "math": Benchmark(
        *("MATH", "math", 4, 1024, True, ("math", "hendrycks_math", "competition_math")),
        hub="EleutherAI/hendrycks_math",
        hub_config="{subtask}",
        stock="minerva_math_{subtask}",
        subtasks=MATH,
        paper=_paper("math"),
    ),
    "nq": Benchmark(
        *("Natural Questions", "phrase", 1, 50, False),
        ("nq", "nq_open", "natural_questions", "naturalquestions"),
        hub="google-research-datasets/nq_open",
        stock="nq_open",
        group="ablation",
        asked=("validation", "dev", "test", "", "train"),
        paper_gains={"own samples, ranked by people": 4.0, "GPT-4-LLM": 0.89},
    ),
    "webqs": Benchmark(
        *("Web Questions", "phrase", 1, 50, False),
        ("webqs", "webq", "web_questions", "webquestions"),
        hub="stanfordnlp/web_questions",
        stock="webqs",
        group="ablation",
        paper_gains={"own samples, ranked by people": 9.79},
    ),
    "lambada": Benchmark(
        *("LAMBADA", "word", 1, 15, False, ("lambada", "lambada_openai")),
        hub="EleutherAI/lambada_openai",
        hub_config="default",
        stock="lambada_openai",
        group="ablation",
        paper_gains={"own samples, ranked by people": 17.17},
    ),
}
"""The fifteen, in the order in which a table shows them."""
