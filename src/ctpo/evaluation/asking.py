"""Put questions to a model and keep every answer: in batches here, or side by side on a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Protocol

from ctpo.evaluation.answers import Question, Reply, graded
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.evaluation.rewards import Reward
from ctpo.tir import EpisodeSettings, SandboxFailure, Trajectory
from ctpo.tir.episode import Message
from ctpo.tir.server.endpoint import Endpoint, EndpointError, Interrupted
from ctpo.tir.server.episodes import Template, converse

if TYPE_CHECKING:
    from ctpo.sandbox import Sandbox

Keep = Callable[[Sequence[tuple[Question, Reply]]], None]
# (chats, seed of the sampling) -> one episode per chat, in order.
Policy = Callable[[list[list[Message]], int], Sequence[Trajectory]]
Progress = Callable[[int, int], None]

# A few sandbox failures are an accident, whatever their share of a small run.
_FAILURES_THAT_COUNT = 3
# Answers that a server may fail to give before the first one that it gives.
_FAILURES_AT_FIRST = 8


class Model(Protocol):
    """Answers questions."""

    def ask(
        self, questions: Sequence[Question], wanted: Callable[[Question], bool], keep: Keep
    ) -> None:
        """Answer the questions that are wanted.

        Args:
            questions: All questions of the evaluation, in order.
            wanted: Whether an answer is still missing.
            keep: To be called with answers as they come, from the calling thread.
        """


class BatchModel:
    """A model of one's own, run on whole batches.

    A batch holds the same questions and has the same seed whether or not the evaluation was
    interrupted; of one that was answered in part, all is generated again and the rest is kept.

    Args:
        policy: Answers a batch.
        seed: With a batch's number it gives the batch's seed.
        batch_size: Episodes side by side.

    Raises:
        ValueError: `batch_size` is below 1.
    """

    def __init__(self, policy: Policy, seed: int, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
        self._policy = policy
        self._seed = seed
        self._size = batch_size

    def ask(
        self, questions: Sequence[Question], wanted: Callable[[Question], bool], keep: Keep
    ) -> None:
        """Answer, batch by batch; see `Model.ask`.

        Raises:
            ValueError: The policy does not return one answer per chat.
        """
        for index, start in enumerate(range(0, len(questions), self._size)):
            batch = questions[start : start + self._size]
            if not any(map(wanted, batch)):
                continue
            seed = self._seed * 1_000_003 + index
            started = time.perf_counter()
            # Copies, so that a policy that edits its chats does not edit the problems.
            chats = [[dict(message) for message in q.problem.messages] for q in batch]
            episodes = self._policy(chats, seed)
            if len(episodes) != len(batch):
                raise ValueError(
                    f"the policy gave {len(episodes)} answers to {len(batch)} chats in batch "
                    f"{index}; one is needed each"
                )
            share = (time.perf_counter() - started) / len(batch)
            keep(
                [
                    (question, Reply(episode, share, seed))
                    for question, episode in zip(batch, episodes, strict=True)
                    if wanted(question)
                ]
            )


class ServerModel:
    """A model behind an OpenAI-compatible server, asked side by side.

    Args:
        endpoint: The server.
        sandbox: A started sandbox.
        settings: What an episode may use.
        temperature: Divides the logits; 0 takes the likeliest token.
        concurrency: Episodes side by side.
        template: The chat template, for the completions API.
        count: Returns how many tokens a text takes, for the same.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        sandbox: Sandbox,
        settings: EpisodeSettings,
        *,
        temperature: float,
        concurrency: int,
        template: Template | None = None,
        count: Callable[[str], int] | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._sandbox = sandbox
        self._settings = settings
        self._temperature = temperature
        self._concurrency = concurrency
        self._template = template
        self._count = count

    def ask(
        self, questions: Sequence[Question], wanted: Callable[[Question], bool], keep: Keep
    ) -> None:
        """Answer side by side; see `Model.ask`.

        Raises:
            EndpointError: The server cannot be used, or not one of the first answers came. What it
                answered before is kept.
        """
        todo = iter([question for question in questions if wanted(question)])
        failure: Exception | None = None
        programs = failed = given = unanswered = 0
        with ThreadPoolExecutor(self._concurrency) as threads:
            running: dict[Future[Reply], Question] = {}
            try:
                while True:
                    # Only so many are begun as can run: a fatal error leaves none behind.
                    while failure is None and len(running) < self._concurrency:
                        question = next(todo, None)
                        if question is None:
                            break
                        running[threads.submit(self._answer, question)] = question
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        question = running.pop(future)
                        try:
                            reply = future.result()
                        except Interrupted:
                            continue
                        except Exception as error:
                            # Those under way may end, and are kept, before it is raised.
                            failure = failure or error
                            self._endpoint.retries = 0
                            continue
                        if reply.response.finish_reason == "failed":
                            if failure is not None:
                                continue  # it was not tried as often as others
                            unanswered += 1
                        else:
                            given += 1
                        keep([(question, reply)])
                        if unanswered == _FAILURES_AT_FIRST and not given:
                            failure = failure or EndpointError(
                                f"all of the first {unanswered} answers failed, the last with: "
                                f"{getattr(reply.response, 'failure', None)}"
                            )
                        results = reply.response.tool_results
                        programs += len(results)
                        failed += sum(r.status == "sandbox-failure" for r in results)
                        if failed >= _FAILURES_THAT_COUNT and (
                            failed > self._settings.max_failure_share * programs
                        ):
                            failure = failure or SandboxFailure(
                                f"{failed} of {programs} programs failed in the sandbox itself; "
                                "`ctpo doctor` tells what is missing"
                            )
            except BaseException:
                self._endpoint.stopped.set()
                raise
        if failure is not None:
            raise failure

    def _answer(self, question: Question) -> Reply:
        started = time.perf_counter()
        transcript = converse(
            self._endpoint,
            self._sandbox,
            question.problem.messages,
            self._settings,
            temperature=self._temperature,
            seed=question.seed,
            template=self._template,
            count=self._count,
        )
        return Reply(transcript, time.perf_counter() - started, question.seed)


def answer_all(
    questions: Sequence[Question],
    model: Model,
    directory: EvaluationDirectory,
    on_progress: Progress | None = None,
    reward: Reward | None = None,
) -> None:
    """Ask what is not answered yet, grade it and keep it.

    Args:
        questions: All questions of the evaluation.
        model: Answers them.
        directory: An open directory, perhaps with answers from before.
        on_progress: Called with the number of answers so far and in all.
        reward: Says how good an answer is, in place of our grader.

    Raises:
        ValueError: The directory holds an answer to what is not asked.
    """
    asked = {question.key for question in questions}
    for key in directory.answers:
        if key not in asked:
            raise ValueError(f"{directory.path} holds an answer to {key}, which is not asked")
    directory.add_problems(questions)

    def keep(replies: Sequence[tuple[Question, Reply]]) -> None:
        directory.add([graded(question, reply, reward) for question, reply in replies])
        if on_progress is not None:
            on_progress(len(directory.answers), len(questions))

    if on_progress is not None:
        on_progress(len(directory.answers), len(questions))
    model.ask(questions, lambda question: question.key not in directory.answers, keep)
