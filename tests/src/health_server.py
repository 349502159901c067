"""A gRPC server whose health is told to it: a line such as `shop SERVING` on standard input sets one service's status."""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
servicer = health.HealthServicer()
if "--without-health" not in sys.argv:
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
for line in sys.stdin:
    service, status = line.split()
    servicer.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    print("set", flush=True)
server.stop(None)
