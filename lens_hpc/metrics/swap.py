"""SWAP: grades become the probability that an item is a lens, by what their graders are worth.

The Space Warps Analysis Pipeline (Marshall et al. 2016, MNRAS 455, 1171, section 4) gives each
grader two probabilities: to say "lens" of a lens, P("lens" | lens), and to say "not" of what is
none, P("not" | not). They are learned from items of known truth, which are hidden among the others,
and Bayes' rule applies them grade by grade. Ours is the supervised form: a grader is measured by
all that he said of known items, so the order of the grades does not matter.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, logit

from lens_hpc.metrics.ranking import TAIL

# Before any item of known truth, a grader is a coin that was tossed twice: right once, wrong once.
RIGHT_BEFORE, WRONG_BEFORE = 1, 1

REPLICATES = 1000
ITEMS_AT_ONCE = 500
"""Of which all replicates are in memory: 4 MB."""


@dataclass(frozen=True)
class Skills:
    """What graders said of items of known truth; each array is (G,) int."""

    lenses: np.ndarray
    """Lenses that each saw."""
    lenses_right: np.ndarray
    """Of these he called "lens"."""
    others: np.ndarray
    """Items that each saw, and that are no lenses."""
    others_right: np.ndarray
    """Of these he called "not"."""

    @property
    def lens_given_lens(self) -> np.ndarray:
        """P("lens" | lens), (G,): 1/2 before any lens was seen."""
        return (self.lenses_right + RIGHT_BEFORE) / (self.lenses + RIGHT_BEFORE + WRONG_BEFORE)

    @property
    def not_given_not(self) -> np.ndarray:
        """P("not" | not), (G,): 1/2 before anything that is no lens was seen."""
        return (self.others_right + RIGHT_BEFORE) / (self.others + RIGHT_BEFORE + WRONG_BEFORE)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw both probabilities of each grader from their Beta distributions, each (G, size)."""
        of_lenses = _draw_shares(rng, self.lenses_right, self.lenses, size)
        of_others = _draw_shares(rng, self.others_right, self.others, size)
        return of_lenses, of_others


@dataclass(frozen=True)
class Swap:
    """Probability that each item is a lens, and what it rests on."""

    posterior: np.ndarray
    """(N,); the prior, of an item without grades."""
    low: np.ndarray
    """Lower end of its 95% interval, (N,)."""
    high: np.ndarray
    """Upper end, (N,)."""
    skills: Skills
    """Of the graders."""


def run_swap(
    item: np.ndarray,
    grader: np.ndarray,
    says_lens: np.ndarray,
    truth: np.ndarray,
    prior: float,
    seed: int = 0,
) -> Swap:
    """Return the posteriors of items, by grades of graders whom items of known truth measure.

    A grade is an entry of each of `item` (V,) int from 0 to N - 1, `grader` (V,) int from 0, and
    `says_lens` (V,) bool. `truth` (N,) is 1 for a hidden lens, 0 for what is known to be none, and
    -1 for what is asked. `prior` is the share of lenses among the items that are asked.

    An interval holds the posteriors of 95% of resampled teams. A team has the graders of the item,
    each with a random weight (the Bayesian bootstrap: Rubin 1981, Ann. Statist. 9, 130) and with
    skills that the hidden items allow. It does not tell what errors graders share.
    """
    graders = int(grader.max()) + 1 if len(grader) else 0
    skills = _measure_skills(item, grader, says_lens, truth, graders)

    # Which answers each item got: a column for each grader's "lens", and then for each one's "not".
    answer = np.where(says_lens, grader, graders + grader)
    shape = len(truth), 2 * graders
    answers = csr_array((np.ones(len(item)), (item, answer)), shape=shape)

    evidence = answers @ _weigh(skills.lens_given_lens, skills.not_given_not)
    lowest, highest = _resample(answers, skills, seed)
    ends = np.minimum(lowest, evidence), evidence, np.maximum(evidence, highest)
    low, posterior, high = expit(logit(prior) + np.stack(ends))
    return Swap(posterior, low, high, skills)


def _measure_skills(
    item: np.ndarray, grader: np.ndarray, says_lens: np.ndarray, truth: np.ndarray, graders: int
) -> Skills:
    """Count what graders said of items of known truth; the arrays are `run_swap`'s."""
    of_lens = truth[item] == 1
    of_other = truth[item] == 0

    def count(is_counted: np.ndarray) -> np.ndarray:
        return np.bincount(grader[is_counted], minlength=graders)

    return Skills(
        lenses=count(of_lens),
        lenses_right=count(of_lens & says_lens),
        others=count(of_other),
        others_right=count(of_other & ~says_lens),
    )


def _weigh(lens_given_lens: np.ndarray, not_given_not: np.ndarray) -> np.ndarray:
    """Return the log of the likelihood ratio of each answer of each grader, (2 G, ...).

    The probabilities are (G, ...). "lens" of all graders comes first, and then "not".
    """
    of_lens = np.log(lens_given_lens) - np.log1p(-not_given_not)
    of_not = np.log1p(-lens_given_lens) - np.log(not_given_not)
    return np.concatenate([of_lens, of_not])


def _resample(answers: csr_array, skills: Skills, seed: int) -> np.ndarray:
    """Return both ends of the 95% intervals of the evidence for items, (2, N).

    `answers` is (N, 2 G): how often each item got each answer of each grader.
    """
    rng = np.random.default_rng(seed)
    drawn = skills.draw(rng, REPLICATES)
    of_graders = rng.standard_exponential(drawn[0].shape)
    weights = np.concatenate([of_graders, of_graders])
    weighted = weights * _weigh(*drawn)

    counts = answers.sum(axis=1)
    graded = np.flatnonzero(counts)
    ends = np.zeros((2, len(counts)))
    for start in range(0, len(graded), ITEMS_AT_ONCE):
        items = graded[start : start + ITEMS_AT_ONCE]
        given = answers[items]

        # The weights of an item's graders have a mean of 1.
        mean_weight = (given @ weights) / counts[items, np.newaxis]
        evidence = (given @ weighted) / mean_weight
        ends[:, items] = np.quantile(evidence, [TAIL, 1 - TAIL], axis=1)
    return ends


def _draw_shares(
    rng: np.random.Generator, right: np.ndarray, count: np.ndarray, size: int
) -> np.ndarray:
    """Draw the shares that counts of right answers (G,) allow, (G, size)."""
    wrong = count - right
    alpha = (right + RIGHT_BEFORE)[:, np.newaxis]
    beta = (wrong + WRONG_BEFORE)[:, np.newaxis]
    return rng.beta(alpha, beta, (len(right), size))
