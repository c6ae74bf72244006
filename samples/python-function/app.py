"""An HTTP function in Python."""

import os

from wit_world.exports import IncomingHandler as Base
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)
from componentize_py_types import Ok


class IncomingHandler(Base):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        pod = os.environ.get("POD_NAME", "nobody")
        path = request.path_with_query() or "/"
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            stream.blocking_write_and_flush(f"Hello from Python in {pod}, you asked for {path}\n".encode())
        OutgoingBody.finish(body, None)
