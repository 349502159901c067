"""gRPC's own server and client for a service that echoes: `serve [CERTIFICATE KEY]`, or `call ADDRESS AUTHORITY`.

The client prints what it saw, line by line: a unary call, a stream both ways in which each message is sent only after the one before
came back, a call that fails with a status, and one that the client cancels.
"""

import queue
import sys
import time
from concurrent import futures

import grpc


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/echo.Echo/Once": grpc.unary_unary_rpc_method_handler(once),
            "/echo.Echo/Both": grpc.stream_stream_rpc_method_handler(both),
            "/echo.Echo/Fail": grpc.unary_unary_rpc_method_handler(fail),
            "/echo.Echo/Wait": grpc.unary_stream_rpc_method_handler(wait),
        }.get(details.method)


def once(request, context):
    context.set_trailing_metadata((("x-length", str(len(request))),))
    return request


def both(requests, context):
    for request in requests:
        yield request.upper()
    context.set_trailing_metadata((("x-end", "reached"),))


def fail(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")


def wait(request, context):
    context.add_callback(lambda: print("given up", flush=True))
    yield b"begun"
    while context.is_active():
        time.sleep(0.02)


def serve(pair):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((Echo(),))
    if pair:
        certificate, key = map(read, pair)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def call(address, authority):
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(read(authority))) as channel:
        answer, done = channel.unary_unary("/echo.Echo/Once").with_call(b"x" * 300_000, timeout=20)
        print("once", len(answer), dict(done.trailing_metadata()).get("x-length"))

        messages = queue.SimpleQueue()
        messages.put(b"first")
        stream = channel.stream_stream("/echo.Echo/Both")(iter(messages.get, None), timeout=20)
        for message in stream:
            print("both", message.decode())
            messages.put({b"FIRST": b"second", b"SECOND": b"third"}.get(message))
        print("both", stream.code().name, dict(stream.trailing_metadata()).get("x-end"))

        try:
            channel.unary_unary("/echo.Echo/Fail")(b"", timeout=20)
        except grpc.RpcError as error:
            print("fail", error.code().name, error.details())

        stream = channel.unary_stream("/echo.Echo/Wait")(b"", timeout=20)
        print("wait", next(stream).decode())
        stream.cancel()
        print("wait", stream.code().name)


if sys.argv[1] == "serve":
    serve(sys.argv[2:])
else:
    call(*sys.argv[2:])
