# modhost: `make run` shows it, `make test` proves it. The rest is for maintainers and packagers.

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo

bindir     = $(PREFIX)/bin
libdir     = $(PREFIX)/lib
includedir = $(PREFIX)/include
mandir     = $(PREFIX)/share/man
unitdir    = $(PREFIX)/lib/systemd/system
root       = $(DESTDIR)

abi_version = $(shell sed -n 's/^version = "\(.*\)"/\1/p' module-api/Cargo.toml)

# Everything below names files under target/.
unexport CARGO_TARGET_DIR

.PHONY: all run build test bench lint install clean

all: build

build:
	$(CARGO) build --release --workspace
	$(MAKE) -C modules/c-hello

run: build
	@echo 'serving until Ctrl-C; in another terminal try:'
	@echo "  bash -c 'exec 3<>/dev/udp/127.0.0.1/7007; echo hello >&3; head -1 <&3'"
	@echo '  target/release/modhost ps -s target/quickstart.sock       # its processes'
	@echo '  target/release/modhost stats -s target/quickstart.sock    # what they have counted'
	@echo '  target/release/modhost shm -s target/quickstart.sock      # who has how much shared memory'
	@target/release/modhost run -c docs/quickstart.toml

# The tests drive built files, so everything they start is built first.
test: build
	$(CARGO) build --workspace
	$(CARGO) build --manifest-path tests/modules/Cargo.toml --workspace
	$(CARGO) build --manifest-path docs/examples/outside-rust/Cargo.toml --target-dir target/outside-rust
	$(MAKE) -C docs/examples/outside-c MODHOST_CFLAGS=-I../../../module-api/include
	$(CARGO) test --workspace

bench: build
	tests/bench/run

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) deny check bans licenses sources
	$(CARGO) machete --skip-target-dir   # unused dependencies, of all manifests below

target/release/modhost:
	$(CARGO) build --release -p modhost

install: target/release/modhost
	install -D -m 755 target/release/modhost $(root)$(bindir)/modhost
	install -D -m 644 module-api/include/modhost.h $(root)$(includedir)/modhost.h
	install -D -m 644 module-api/include/modhost/http.h $(root)$(includedir)/modhost/http.h
	install -D -m 644 docs/modhost.1 $(root)$(mandir)/man1/modhost.1
	install -d $(root)$(libdir)/modhost $(root)$(libdir)/pkgconfig $(root)$(unitdir)
	sed 's|/usr/bin/|$(bindir)/|' docs/modhost.service > $(root)$(unitdir)/modhost.service
	( echo 'moduledir=$(libdir)/modhost'; \
	  sed -e 's|@prefix@|$(PREFIX)|' -e 's|@version@|$(abi_version)|' module-api/modhost.pc.in ) \
	    > $(root)$(libdir)/pkgconfig/modhost.pc

clean:
	$(CARGO) clean
	$(CARGO) clean --manifest-path tests/modules/Cargo.toml
	$(MAKE) -C modules/c-hello clean
	$(MAKE) -C docs/examples/outside-c clean
