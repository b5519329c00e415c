# The two commands of the README on a bare Python image:
#   docker build -t ntps .                                   makes the environment and the book
#   docker run --rm ntps make test                           runs the tests
#   docker run --rm -p 8000:8000 ntps                        serves the site at http://localhost:8000
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends chromium git make && rm -rf /var/lib/apt/lists/*
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu LANG=C.UTF-8
WORKDIR /book
COPY . .
RUN make book
EXPOSE 8000
CMD ["python", "-m", "http.server", "8000", "--directory", "_build/html"]
