"""A registered classifier as MLflow runs it: copied into the model, and run from there.

A request that can't be answered is the caller's mistake, a 4xx with one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from vgg16_transfer.errors import InputError
from vgg16_transfer.heads import classifier
from vgg16_transfer.tracking.mlflow_private import bad_request

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException


class PictureClassifier(PythonModel):  # type: ignore[misc]  # MLflow has no types
    """Column ``picture``, a file's bytes → a column of probabilities for each class."""

    def load_context(self, context: Any) -> None:
        """Loads backbone and head; MLflow calls it once."""
        self._classifier = classifier.load(Path(context.artifacts["classifier"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Probabilities in columns named like the classes, a row for each picture.

        Raises:
            MlflowException: A row holds no usable picture; its number is in the message.
        """
        del context, params
        rows = [
            self._answer(content, number)
            for number, content in enumerate(model_input["picture"], start=1)
        ]
        return pd.DataFrame(rows, columns=list(self._classifier.recipe.class_names), dtype=float)

    def _answer(self, content: object, number: int) -> Any:
        try:
            if not isinstance(content, bytes):
                raise _refusal(number, "is no file's bytes (base64 in JSON)")
            return self._classifier.probabilities(content)
        except InputError as error:
            raise _refusal(number, str(error)) from None


def _refusal(number: int, reason: str) -> MlflowException:
    return bad_request(f"picture {number} {reason}", reason)


mlflow.models.set_model(PictureClassifier())
