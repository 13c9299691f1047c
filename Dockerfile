# Every image of the project, one target each:
#   docker build --target isthmusd -t isthmus/isthmusd:0.1.0 .
# The final stages are also read by "devcluster build", which makes the same
# images without an engine; it knows FROM, COPY --from, USER, ENTRYPOINT, ENV.

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY . .
RUN make build BIN=/out

FROM envoyproxy/envoy:distroless-v1.40.0 AS envoy

FROM gcr.io/distroless/static-debian12:nonroot AS operator
COPY --from=build /out/operator /usr/local/bin/operator
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/operator"]

FROM gcr.io/distroless/static-debian12:nonroot AS isthmusd
COPY --from=build /out/isthmusd /usr/local/bin/isthmusd
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/isthmusd"]

FROM gcr.io/distroless/base-nossl-debian12:nonroot AS isthmus-proxy
COPY --from=envoy /usr/local/bin/envoy /usr/local/bin/envoy
COPY --from=build /out/isthmus-agent /usr/local/bin/isthmus-agent
USER 1337:1337
ENTRYPOINT ["/usr/local/bin/isthmus-agent"]

FROM gcr.io/distroless/static-debian12:nonroot AS testapp
COPY --from=build /out/testapp /usr/local/bin/testapp
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/testapp"]
