"""The peer: FastAPI, uvicorn with httptools and uvloop, asyncpg. The same book from the same database with the same
question, as such an application is usually written: a pool, a response model, nothing of logs, metrics or request ids.

    PEER_DATABASE_URL=postgresql://… python -m uvicorn tests.benchmarks.peer:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
from fastapi import FastAPI, HTTPException, Response

from bookstore.catalogue.models import Book, PageOfBooks, present_book
from bookstore.catalogue.queries import SHOWN_BOOK

BOOK = f"SELECT {SHOWN_BOOK} FROM books b WHERE b.id = $1"
BOOKS = f"SELECT {SHOWN_BOOK} FROM books b WHERE b.archived_at IS NULL ORDER BY b.sort_title, b.id LIMIT $1"


@asynccontextmanager
async def database(app: FastAPI) -> AsyncIterator[None]:
    async def speak_json(connection: asyncpg.Connection) -> None:
        await connection.set_type_codec("json", encoder=orjson.dumps, decoder=orjson.loads, schema="pg_catalog")

    async with asyncpg.create_pool(os.environ["PEER_DATABASE_URL"], min_size=1, max_size=25, init=speak_json) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=database)


@app.get("/ready")
async def ready() -> Response:
    return Response()


@app.get("/books/{id}", response_model=Book)
async def show_book(id: int, response: Response) -> Any:
    row = await app.state.pool.fetchrow(BOOK, id)
    if row is None or row["archived_at"] is not None:
        raise HTTPException(404)
    response.headers["ETag"] = f'"{row["version"]}"'
    response.headers["Cache-Control"] = "public, max-age=60"
    return present_book(row)


@app.get("/books", response_model=PageOfBooks)
async def list_books(limit: int = 20) -> Any:
    rows = await app.state.pool.fetch(BOOKS, limit + 1)
    return {"items": [present_book(row) for row in rows[:limit]], "next": "/books?cursor=more", "prev": None}
