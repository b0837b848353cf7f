"""A gRPC visitor."""

import grpc


def open_channel(daemon, name):
    host = daemon.host(name)
    options = [
        ("grpc.ssl_target_name_override", host),
        ("grpc.default_authority", host),
        ("grpc.max_receive_message_length", -1),
    ]
    credentials = grpc.ssl_channel_credentials(daemon.ca.read_bytes())
    return grpc.secure_channel(f"127.0.0.1:{daemon.port}", credentials, options)
