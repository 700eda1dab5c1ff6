"""A tool of your own: what the policy is told of it, and what it reads when it calls it.

python examples/own_tool.py      # no model; `rollout.tools = ["own_tool:Shop"]` gives it to one
"""

from ctpo.tir.protocols import protocol
from ctpo.tir.tools import Tool, ToolError, Tools


class Shop:
    """One for each episode, so what is bought is this episode's."""

    def __init__(self):
        self.stock = {"bolts": 140, "nuts": 95}

    def __call__(self, item: str, count: int) -> str:
        """Buys something and says how many are left.

        Args:
            item: The item's name.
            count: How many.
        """
        if item not in self.stock:
            raise ValueError(f"no such item; there are {', '.join(self.stock)}")  # it reads this
        self.stock[item] -= count
        return f"{self.stock[item]} {item} are left"


def main():
    hermes = protocol("hermes").with_tools([tool := Tool.of(Shop)])
    print(hermes.instructions)
    tools = Tools([tool])
    for arguments in (
        '"item": "nuts", "count": "15"',
        '"item": "nuts", "count": 5',
        '"item": "x", "count": 1',
    ):
        text = f'<tool_call>\n{{"name": "Shop", "arguments": {{{arguments}}}}}\n</tool_call>'
        call = hermes.find_call(text)
        try:
            answer = tools.call(call.tool, call.arguments)
        except ToolError as error:
            answer = str(error)
        print(f"{arguments:32} → {answer}")
    tools.close()


if __name__ == "__main__":
    main()
