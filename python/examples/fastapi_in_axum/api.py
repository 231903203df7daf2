"""An API. It does not know where it is mounted, nor what serves it."""

from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket, WebSocketDisconnect


@asynccontextmanager
async def lifespan(app):
    app.state.greeting = "hello"
    yield
    print("the API is closed", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/square/{number}")
async def square(number: int):
    return {"number": number, "square": number * number}


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    await socket.send_text(app.state.greeting)
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass
