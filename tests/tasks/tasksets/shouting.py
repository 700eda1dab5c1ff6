"""A taskset of verifiers, for tests."""

import verifiers.v1 as vf

__all__ = ["Shouting"]


class Data(vf.TaskData):
    answer: str


class Shout(vf.Task[Data, vf.State, vf.TaskConfig]):
    @vf.reward
    async def right(self, trace) -> float:
        if "fire" in trace.last_reply:
            raise RuntimeError("the judge is away")
        return float(self.data.answer in trace.last_reply)

    @vf.reward(weight=0.5)
    async def loud(self, trace) -> float:
        return float(trace.last_reply.isupper())


class Shouting(vf.Taskset[Shout, vf.TasksetConfig]):
    def load(self):
        for word in ("yes", "no", "maybe"):
            data = Data(prompt=f"Shout {word}.", system_prompt="You shout.", answer=word.upper())
            yield Shout(data, self.config.task)
