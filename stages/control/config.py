"""The settings of a search, as a recipe says them."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stages.contracts import setting
from stages.control.schedule import Schedule
from stages.errors import UsageError
from stages.training.precision import PRECISIONS

if TYPE_CHECKING:
    from stages.control.pilot import PilotShape


FIRST, ANYWHERE = "first", "anywhere"  # where dreams begin
WORLD, DREAM, ORACLE = PLACES = ("world", "dream", "oracle")
CMA_ES, PPO = METHODS = ("cma-es", "ppo")
OF_PPO = ("method", "learning_rate", "discount", "passes")
OF_CMA_ES = (
    *("starts", "start_generations", "components", "covariance", "common_tracks", "finalists"),
    *("random_start", "patience"),
)
OF_DREAMS = (
    "temperature",
    "dream_starts",
    "dream_steps",
    "dream_end",
    "dream_dropout",
    "dream_lanes",
    "precision",
)


@dataclass(frozen=True)
class Config:
    """The `[control]` section."""

    features: str = setting(
        "zh", doc="what C sees: latent z, hidden state h, cell c", choices=("z", "zh", "zch")
    )
    hidden: int = setting(0, doc="hidden tanh units of C; 0: linear", low=0)
    bias: bool = setting(True, doc="whether C has a bias")
    latent: str = setting("mean", doc="z is mu, or drawn anew", choices=("mean", "sample"))
    squash: tuple[str, ...] = setting(
        (),
        doc="per action: stretch -1..1 over its bounds, or clip; empty: linear",
        choices=("linear", "clip"),
    )
    method: str = setting(
        "cma-es",
        doc="how C is improved: candidates are drawn and compared; or, in the dream alone, one C "
        "acts with noise and a critic tells which of its actions went well (actor-critic)",
        choices=METHODS,
    )
    generations: int = setting(
        40, doc="generations of CMA-ES; of ppo dreams of population x episodes lanes", low=1
    )
    learning_rate: float = setting(8e-4, doc="of actor and critic (ppo)", above=0.0)
    discount: float = setting(0.99, doc="of what a step later is worth (ppo)", above=0.0, high=1.0)
    passes: int = setting(3, doc="over the steps of a dream, to learn from them (ppo)", low=1)
    starts: int = setting(
        1, doc="searches that begin; the best of them after start_generations goes on", low=1
    )
    start_generations: int = setting(8, doc="generations that each of them is given", low=1)
    population: int = setting(32, doc="candidates per generation", low=4)
    episodes: tuple[int, ...] = setting(
        (2,), doc="episodes per candidate; several values share the generations equally", low=1
    )
    components: int = setting(
        0, doc="search along so many principal components of what C sees; 0: every weight", low=0
    )
    sigma: float = setting(
        0.1, doc="initial standard deviation; of ppo that of C's outputs before the tanh", above=0.0
    )
    sigma_end: float = setting(
        0.0,
        doc="to where sigma falls, by the same factor each generation; 0: CMA-ES adapts it, ppo "
        "keeps it",
        low=0.0,
    )
    covariance: str = setting("full", doc="what CMA-ES adapts", choices=("full", "diagonal"))
    common_tracks: bool = setting(True, doc="all candidates of a generation drive the same seeds")
    finalists: int = setting(
        0, doc="best candidates of a generation that drive as many tracks again; 0: none", low=0
    )
    random_start: bool = setting(
        False, doc="candidates begin anywhere on the track (CarRacing); the mean vector does not"
    )
    patience: int = setting(
        0, doc="give an episode up after so many actions without reward; 0: never", low=0
    )
    max_steps: tuple[int, ...] = setting(
        (0,),
        doc="actions per episode at most, 0: to its end; several share the generations equally",
        low=0,
    )
    place: str = setting(
        "world",
        doc="where candidates are tried: the world, M's dream, or the world seen as a dream is; "
        "the mean vector is always scored in the world",
        choices=PLACES,
    )
    temperature: float = setting(1.0, doc="of the dream: how much M's doubts count", low=0.0)
    dream_starts: str = setting(
        "first",
        doc="where candidates' dreams begin: at recorded first frames, or at any recorded frame, "
        "with what M remembers of the episode; the mean vector's are whole episodes",
        choices=(FIRST, ANYWHERE),
    )
    dream_steps: int = setting(
        0,
        doc="actions after which a dream is cut, or only a candidate's where those begin anywhere; "
        "0: the world's time limit",
        low=0,
    )
    dream_end: str = setting(
        "hard",
        doc="a dream ends where M thinks that likelier than not; or as often as M says; or its "
        "rewards count by the chance that it came so far",
        choices=("hard", "sampled", "expected"),
    )
    dream_dropout: float = setting(
        0.0, doc="share of z and of h that a dream does without, drawn once per episode", low=0.0
    )
    dream_lanes: int = setting(
        256, doc="dreams of one task on a processor; elsewhere all are one task", low=1
    )
    precision: str = setting(
        "auto",
        doc="of M's matrix products in the dream; auto is resolved once per workspace",
        choices=PRECISIONS,
    )
    task_lanes: int = setting(32, doc="episodes that one task drives as lanes", low=1)
    select_every: int = setting(5, doc="generations between scores of the mean vector", low=1)
    select_episodes: int = setting(16, doc="held-out episodes of such a score", low=1)

    def __post_init__(self) -> None:
        """Refuse a search whose episodes have no length or number."""
        if not self.max_steps:
            raise ValueError("max_steps is empty; [0] means to the episode's end")
        if not self.episodes:
            raise ValueError("episodes is empty; [1] means one per candidate")
        if self.dream_dropout >= 1:
            raise ValueError(f"dream_dropout is {self.dream_dropout}: nothing would be left")
        if self.method == PPO and (self.components or self.finalists or self.starts > 1):
            raise ValueError(
                "method ppo has no candidates: components and finalists must be 0, starts 1"
            )
        if self.finalists == 1 or self.finalists >= self.population:
            raise ValueError(
                f"finalists is {self.finalists}: 0, or 2 to {self.population - 1}, fewer than the "
                "population and enough to compare"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the search reads."""
        dreams = self.place == DREAM
        memory = ("memory",) if dreams or self.features != "z" else ()
        return ("vision", *memory, *(("latents",) if dreams or self.components else ()))

    @property
    def decisive(self) -> dict[str, Any]:
        """The settings that decide what comes out: those of the dream only where there is one."""
        idle = {DREAM: (), ORACLE: OF_DREAMS, WORLD: ("place", *OF_DREAMS)}[self.place]
        idle = (*idle, *(OF_PPO if self.method == CMA_ES else OF_CMA_ES))
        return {name: value for name, value in asdict(self).items() if name not in idle}

    @property
    def schedule(self) -> Schedule:
        """What it does in which generation."""
        return Schedule(
            generations=self.generations,
            population=self.population,
            episodes=self.episodes,
            max_steps=self.max_steps,
            common_tracks=self.common_tracks and self.method == CMA_ES,
            heats=2 if self.finalists else 1,
        )

    @property
    def pilot(self) -> "PilotShape":
        """The agent whose controller it looks for."""
        from stages.control.pilot import PilotShape

        names = ("features", "hidden", "bias", "latent", "squash")
        return PilotShape(**{name: getattr(self, name) for name in names})


def check_place(config: Config) -> None:
    """Refuse a search where its method has nothing to learn from.

    Raises:
        UsageError: it is no place for this method.
    """
    if config.method == PPO and config.place != DREAM:
        raise UsageError(
            f"control.method=ppo learns in the dream, not in the {config.place}.",
            why="It takes more steps than the world could give.",
            fix="Use --set control.place=dream, or --set control.method=cma-es",
        )
