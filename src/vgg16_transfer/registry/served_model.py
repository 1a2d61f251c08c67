"""The code of a registered classifier. It is copied into the model, and MLflow runs it there.

If a request can't be answered, the answer is status 400 with one sentence.
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
    """Takes the column ``picture`` with files' bytes; returns one column per class."""

    def load_context(self, context: Any) -> None:
        """Loads backbone and head. MLflow calls it once."""
        self._classifier = classifier.load(Path(context.artifacts["classifier"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Classifies pictures.

        Returns:
            Probabilities, 0 to 1: one row per picture, one column per class, named like the class.

        Raises:
            MlflowException: A row is not a usable picture. The message has the number of the row.
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
