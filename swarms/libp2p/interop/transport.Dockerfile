# The image of the libp2p project's harness for the transport tests, in which the dialler pings once.
# The build's context is the root of this repository.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --locked --release -p p2p-libp2p-interop --bin interop

FROM debian:bookworm-slim
COPY --from=build /build/target/release/interop /usr/local/bin/interop
ENTRYPOINT ["/usr/local/bin/interop", "transport"]
