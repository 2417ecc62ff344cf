"""The fuzz targets import jsonrpcserver, which reads its schema in a way that Python 3.11 and 3.12
call deprecated; warnings are errors here."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import jsonrpcserver  # noqa: F401
