# The root file system of the plugin. `make plugin` makes the same one without an engine; `make dockerfile-test` compares.
# BASE is any image with Go and a POSIX shell.
ARG BASE=golang:1.26-bookworm
FROM ${BASE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN scripts/rootfs /rootfs "$VERSION"

FROM scratch
COPY --from=build /rootfs /
ENTRYPOINT ["/carrick", "plugin"]
