"""The sandbox over HTTP, as SandboxFusion's clients speak it.

Needs FastAPI and uvicorn, which `pip install 'ctpo[sandbox-server]'` brings.
"""
