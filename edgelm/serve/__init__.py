"""What answers over the network: HTTP as clients of OpenAI and Ollama speak it, a page, and Wyoming.

``http`` reads and writes HTTP; ``access`` decides who may; ``service`` holds the profiles and their conversations;
``openai``, ``ollama`` and ``own`` are three ways to ask it, each a table of routes.
"""
