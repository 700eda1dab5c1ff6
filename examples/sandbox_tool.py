"""The sandbox behind a tool call as OpenAI's API writes it: no model, no key, no network.

python examples/sandbox_tool.py    # two seconds
"""

import json

from ctpo import Sandbox

PYTHON = {
    "type": "function",
    "function": {
        "name": "python",
        "description": "Runs a Python program and returns what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string"}},
            "required": ["code"],
        },
    },
}  # goes to chat.completions.create(tools=[PYTHON], ...)


def answer(sandbox, call):
    """Returns the message that answers one entry of `choices[0].message.tool_calls`."""
    code = json.loads(call["function"]["arguments"])["code"]
    execution = sandbox.run(code)
    told = execution.stdout if execution.status == "success" else execution.stderr
    content = json.dumps({"status": execution.status, "output": told[-2000:]})
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def called(number, code):
    function = {"name": "python", "arguments": json.dumps({"code": code})}
    return {"id": f"call_{number}", "type": "function", "function": function}


if __name__ == "__main__":
    programs = ["print(6 * 7)", "1 / 0", "open('/etc/passwd')", "while True: pass"]
    with Sandbox(timeout=1.0, workers=1) as sandbox:
        for number, code in enumerate(programs):
            message = answer(sandbox, called(number, code))
            found = json.loads(message["content"])
            print(f"{code:22} {found['status']:8} {found['output'].strip().splitlines()[-1:]}")
